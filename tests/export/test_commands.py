"""The commands export and apply, as a user runs them, on a sharded GPT-J."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cluster.cli import main
from search.export.base import Base
from search.export.folder import new_folder
from search.export.stream import tensor_digests
from search.model import ModelSource
from search.study.jobs import trial_name
from search.study.outcomes import outcome_file, read_outcomes, write_outcomes
from search.weights.checkpoint import CheckpointReader
from tasks.errors import InputError


def digests(folder):
    return tensor_digests(folder, CheckpointReader(folder).files)


def weights(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def dense(gptj, tmp_path_factory):
    """The dense export of trial 0, verified in a process of its own."""
    out = tmp_path_factory.mktemp("dense") / "model"
    with pytest.MonkeyPatch.context() as patch:
        words = ["export", gptj.folder, "--out", out, "--trial", "0"]
        patch.setattr(sys, "argv", ["laser-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return out


def test_dense_keeps_everything_but_the_edited_tensors(gptj, dense):
    before, after = digests(gptj.model), digests(dense)
    changed = {name for name in before if before[name] != after[name]}
    parts = "transformer.h.0.attn.q_proj", "transformer.h.1.mlp.fc_in", "transformer.h.1.mlp.fc_out"
    assert changed == {f"{part}.weight" for part in parts}
    facts = json.loads((dense / "interventions.json").read_text())
    for name in changed:
        assert facts["edited_tensors"][name] == {"before": before[name], "after": after[name]}
    assert len(weights(dense)) == len(weights(gptj.model)) > 3
    for name, data in weights(gptj.model).items():
        assert len(weights(dense)[name]) == len(data)
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        assert (dense / name).read_bytes() == (gptj.model / name).read_bytes()
    ours, theirs = (
        json.loads((folder / "model.safetensors.index.json").read_text())
        for folder in (dense, gptj.model)
    )
    assert ours["weight_map"] == theirs["weight_map"]
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]


def test_the_verdict_is_stored_and_in_the_card(gptj, dense):
    verdict = json.loads((dense / "verification.json").read_text())
    assert verdict["different"] == 0 and verdict["examples"] == verdict["exact"] == 12
    card = ModelCard.load(dense / "README.md")
    assert card.data.library_name == "transformers" and "laser" in card.data.tags
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert "12 of 12 validation examples answer as in trial 0" in card.text
    assert "| 1.fc_in | keep-top | rank 3 | dense |" in card.text
    assert "95 % interval" in card.text and "laser-search export" in card.text
    front = (dense / "README.md").read_text().split("---")[1]
    assert "model-index" in yaml.safe_load(front)


def test_a_patch_gives_the_dense_model_bit_for_bit_and_refuses_another_base(
    gptj, dense, run, tmp_path
):
    patch, out = tmp_path / "patch", tmp_path / "applied"
    words = ("--format", "patch", "--trial", 0, "--no-verify")
    assert run("export", gptj.folder, "--out", patch, *words)[0] == 0
    assert (patch / "patch.safetensors").stat().st_size < 0.6 * sum(
        map(len, weights(dense).values())
    )
    code, said, _ = run("apply", patch, "--model", gptj.model, "--out", out)
    assert code == 0 and "bit for bit" in said
    assert weights(out) == weights(dense)
    other = tmp_path / "other"
    shutil.copytree(gptj.model, other)
    file = sorted(other.glob("*.safetensors"))[0]
    tensors = load_file(file)
    first = next(name for name in tensors if tensors[name].is_floating_point())
    tensors[first].view(-1)[0] += 1e-3
    save_file(tensors, file, {"format": "pt"})
    code, _, error = run("apply", patch, "--model", other, "--out", tmp_path / "no")
    assert code == 2 and "is not the model that was edited" in error
    assert not (tmp_path / "no").exists()
    (patch / "patch.safetensors").write_bytes(b"12345678garbage")
    assert "damaged" in run("apply", patch, "--model", gptj.model, "--out", tmp_path / "n")[2]
    assert (
        "neither a patch"
        in run("apply", tmp_path, "--model", gptj.model, "--out", tmp_path / "n")[2]
    )


def test_a_resharded_base_is_the_same_base(gptj, dense, run, tmp_path):
    recipe, whole, out = tmp_path / "recipe", tmp_path / "whole", tmp_path / "applied"
    words = ("--format", "recipe", "--trial", 0, "--no-verify")
    assert run("export", gptj.folder, "--out", recipe, *words)[0] == 0
    assert (recipe / "recipe.json").stat().st_size < 1200
    AutoModelForCausalLM.from_pretrained(gptj.model).save_pretrained(whole)
    assert Base(ModelSource(str(whole))).digest == Base(ModelSource(str(gptj.model))).digest
    assert run("apply", recipe / "recipe.json", "--model", whole, "--out", out)[0] == 0
    assert digests(out) == digests(dense)


def test_a_difference_makes_the_exit_code_1_and_keeps_the_files(gptj, run, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(gptj.folder, copy)
    record = gptj.record
    effect = record.trials[1].effect
    stored = read_outcomes(copy, trial_name(1), record.identity.study_id, effect)
    wrong = list(stored.outcomes)
    wrong[3] = type(wrong[3])(**{**vars_of(wrong[3]), "log_probability": -9.0})
    write_outcomes(copy, type(stored)(**{**vars(stored), "outcomes": tuple(wrong)}))
    code, out, _ = run("export", copy, "--out", tmp_path / "model", "--trial", 1)
    assert code == 1 and "FAILED" in out and "11 of 12" in out
    assert (tmp_path / "model" / "config.json").exists()
    assert json.loads((tmp_path / "model" / "verification.json").read_text())["different"] == 1
    assert "FAILED" in (tmp_path / "model" / "README.md").read_text()
    outcome_file(copy, trial_name(1)).unlink()
    code, _, error = run("export", copy, "--out", tmp_path / "model2", "--trial", 1)
    assert code == 2 and "--no-verify" in error


def vars_of(outcome):
    return {name: getattr(outcome, name) for name in type(outcome).__slots__}


def test_bad_input_is_one_sentence(gptj, run, tmp_path, finish, families):
    def refused(*words):
        code, _, error = run("export", *words, "--no-verify")
        assert code == 2 and error.count("\n") == 1
        return error

    out = tmp_path / "out"
    assert "trial 99 does not exist" in refused(gptj.folder, "--out", out, "--trial", 99)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "--overwrite" in refused(gptj.folder, "--out", out, "--trial", 0)
    assert "reads" in refused(gptj.folder, "--out", gptj.model, "--trial", 0, "--overwrite")
    (out / "inner").mkdir()
    assert "inner" in refused(gptj.folder, "--out", out, "--trial", 0, "--overwrite")
    (out / "inner").rmdir()
    words = ("--trial", 0, "--no-verify", "--overwrite")
    assert run("export", gptj.folder, "--out", out, *words)[0] == 0
    assert not (out / "notes.txt").exists() and (out / "config.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "none").mkdir()
    none = finish(tmp_path / "none", families.build("GPT-2"), [])
    assert "no finished trial" in refused(none.folder, "--out", tmp_path / "x")
    one = finish(tmp_path, families.build("GPT-2"), ["1.fc_in=rank:3"])
    (one.model / "config.json").write_text((one.model / "config.json").read_text() + "\n")
    assert "restore them" in refused(one.folder, "--out", tmp_path / "x", "--trial", 0)


def test_too_little_disk_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="GB free"), new_folder(tmp_path / "x", 10**18):
        pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_folder(out, 1, overwrite=True) as partial:
        (partial / "new").write_text("new")
        raise KeyboardInterrupt
    assert [p.name for p in out.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("stored", "evaluated"), [("bfloat16", "float32"), ("float32", "bfloat16")]
)
def test_a_study_in_another_dtype_than_the_files(
    stored, evaluated, run, tmp_path, finish, families
):
    """Wider than the files: all is cast, or the edits would not fit. Narrower: the files' stays."""
    model = families.build("Llama 1-3").to(getattr(torch, stored))
    study = finish(tmp_path, model, ["1.fc_in=rank:3 1.q_proj=0.9"], dtype=evaluated)
    out = tmp_path / "model"
    code, said, _ = run("export", study.folder, "--out", out, "--trial", 0)
    assert code == 0 and "12 of 12" in said
    kinds = {str(t.dtype) for p in out.glob("*.safetensors") for t in load_file(p).values()}
    assert kinds == {"torch.float32"}
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"


def test_what_transformers_keeps_in_float32_is_exported_so(run, tmp_path, finish, families):
    """T5's wo stays float32 in a float16 model; a float16 file cannot hold its edit."""
    model = families.build("T5").to(torch.float16)
    study = finish(tmp_path, model, ["decoder.1.fc_out=rank:3 decoder.1.fc_in=rank:3"])
    code, said, _ = run("export", study.folder, "--out", tmp_path / "model", "--trial", 0)
    assert code == 0 and "12 of 12" in said
    facts = json.loads((tmp_path / "model" / "verification.json").read_text())
    assert facts["exact"] == 12


def test_a_study_of_several_tasks(run, tmp_path, finish, families):
    """Verified on the questions of all tasks; the card has a row for each; healing names one."""
    for name, seed in (("a", 1), ("b", 7)):
        rows = [
            {"prompt": f"w{(seed * i) % 40} w{i}", "answer": f"w{(3 * i) % 40}", "group": str(i)}
            for i in range(16)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    tasks = [
        {"name": "jsonl", "label": name, "data": str(tmp_path / f"{name}.jsonl")} for name in "ab"
    ]
    study = finish(tmp_path, families.build("GPT-2"), ["1.fc_in=rank:3"], asked={"tasks": tasks})
    out = tmp_path / "model"
    code, said, _ = run("export", study.folder, "--out", out, "--trial", 0)
    assert code == 0 and "16 of 16" in said
    card = (out / "README.md").read_text()
    assert "| a (accuracy) | validation |" in card and "| objective | validation |" in card
    words = ("--trial", 0, "--train", tmp_path / "a.jsonl", "--steps", 1, "--out", tmp_path / "x")
    assert "--task" in run("heal", study.folder, *words)[2]


def test_a_script_reads_what_became_of_export_and_apply(gptj, run, tmp_path):
    patch, model = tmp_path / "patch", tmp_path / "model"
    words = ["--trial", "0", "--format", "patch", "--out", patch, "--json"]
    code, printed, _ = run("export", gptj.folder, *words)
    found = json.loads(printed)
    assert code == 0
    assert (found["out"], found["format"], found["trial"]) == (str(patch), "patch", 0)
    assert found["verdict"]["agrees"] and found["verdict"]["different"] == 0
    base = found_base(gptj)
    code, printed, _ = run("apply", patch, "--model", base, "--out", model, "--json")
    assert code == 0
    assert json.loads(printed) == {"out": str(model), "bit_for_bit": True}


def found_base(study):
    return yaml.safe_load((study.folder / "study.yaml").read_text())["model"]["path"]
