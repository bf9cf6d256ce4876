"""A cut that is already known, without a study; interventions from files."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from search.cuts.composition import Composition
from search.export import cut as cuts
from search.export import same_output
from search.export.base import Base
from search.export.factored import factored_bytes, plan_factored
from search.export.intervention_file import spelled_out
from search.export.run import Wish
from search.interruption import Interrupted
from search.model import ModelSource
from search.weights.factors import FactorCache
from search.weights.products import Products
from search.weights.selection import read_composition
from search.weights.svd import decompose
from tasks.errors import InputError


def tensors(folder):
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


@pytest.fixture
def in_process(monkeypatch):
    """The check that a fresh process makes, in this one."""
    monkeypatch.setattr(
        same_output,
        "run_afresh",
        lambda _, folder, asked: same_output.write_json(
            folder / "verification.json",
            same_output.asdict(same_output.compare_folder(folder, same_output.Path(asked))),
        ),
    )


def test_a_cut_is_written_checked_and_described(gptj, run, checked_in_a_new_process, tmp_path):
    out = tmp_path / "model"
    words = ("--intervention", "1.fc_in=rank:3", "--intervention", "0.attn=rank:2")
    code, said, _ = run("cut", gptj.model, *words, "--out", out)
    assert code == 0, said
    assert (
        "0.q_proj=rank:2 0.k_proj=rank:2 0.v_proj=rank:2 0.out_proj=rank:2 1.fc_in=rank:3" in said
    )
    assert "verified: loaded afresh, it gives 5 of 5 texts the output" in said
    before, after = tensors(gptj.model), tensors(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 5
    name = "transformer.h.1.mlp.fc_in.weight"
    parts = decompose(before[name])
    best = (parts.U[:, :3] * parts.S[:3]) @ parts.V[:, :3].T
    torch.testing.assert_close(after[name], best, rtol=0, atol=1e-5)
    assert AutoModelForCausalLM.from_pretrained(out)
    card = ModelCard.load(out / "README.md")
    assert "Nothing was searched and no score was measured" in card.text
    assert "named by hand" in card.text
    assert "| 1.fc_in | keep-top | rank 3 | dense |" in card.text
    assert "--intervention 0.attn=rank:2" in card.text
    assert card.data.eval_results is None
    facts = json.loads((out / "interventions.json").read_text())
    assert facts["study"] is None
    verdict = json.loads((out / "verification.json").read_text())
    assert (verdict["different"], verdict["texts"]) == (0, 5)
    assert str(tmp_path) not in "".join(p.read_text() for p in out.glob("*.json"))


@pytest.mark.parametrize("form", ["dense", "factored", "patch", "recipe", "lora"])
def test_every_format_gives_the_output_of_the_edit_in_memory(gptj, in_process, tmp_path, form):
    levels = {"lora": "0.9", "factored": "rank:3"}
    texts = [f"1.fc_in={levels.get(form, 'rank:3')}", f"0.v_proj={levels.get(form, '0.1')}"]
    wish = Wish(tmp_path / "out", form)
    source = ModelSource(str(gptj.model))
    done = cuts.cut(source, texts, wish, str(tmp_path / "factors"))
    assert done.verdict.agrees
    assert done.verdict.worst < 1e-3
    assert any((tmp_path / "factors").rglob("*.safetensors")), "the cache that was named is used"


@pytest.mark.parametrize("form", ["dense", "factored", "patch"])
def test_a_head_is_cut_where_it_is_named(gptj, in_process, tmp_path, form):
    source = ModelSource(str(gptj.model))
    done = cuts.cut(source, ["lm_head=rank:3", "1.fc_in=rank:3"], Wish(tmp_path / "out", form))
    assert done.verdict.agrees and str(done.composition) == "1.fc_in=rank:3 lm_head=rank:3"
    if form != "patch":
        assert (done.parameters[1] < done.parameters[0]) == (form == "factored")


def test_another_model_in_the_folder_is_a_difference(gptj, in_process, tmp_path):
    done = cuts.cut(ModelSource(str(gptj.model)), ["1.fc_in=rank:3"], Wish(tmp_path / "out"))
    assert done.verdict.exact == done.verdict.texts == 5
    store, source = FactorCache(tmp_path / "f"), ModelSource(str(gptj.model))
    other = Composition.parse(["1.fc_in=rank:2"])
    found = same_output.verify_output(tmp_path / "out", "dense", source, other, store)
    assert not found.agrees
    assert found.different == 5
    assert "FAILED" in found.sentence()


def test_a_difference_is_exit_code_1_and_keeps_the_files(gptj, run, monkeypatch, tmp_path):
    real = same_output.edited_outputs
    monkeypatch.setattr(
        same_output,
        "edited_outputs",
        lambda source, _, store, rows: real(source, Composition(), store, rows),
    )
    out = tmp_path / "out"
    code, said, error = run("cut", gptj.model, "--intervention", "1.fc_in=zero", "--out", out)
    assert code == 1
    assert "FAILED" in said
    assert "the files stay" in error
    assert (out / "config.json").exists()


def test_what_is_refused(gptj, run, tmp_path):
    def refused(*words):
        code, said, error = run("cut", *words)
        assert code == 2, said
        assert error.count("\n") == 1
        return error

    out = tmp_path / "out"
    cut = ("--intervention", "1.fc_in=rank:3", "--out", out)
    assert "there is nothing to cut" in refused(gptj.model, "--out", out)
    assert "'1.fc_inn' matches no matrix" in refused(
        gptj.model, "--intervention", "1.fc_inn=0.1", "--out", out
    )
    assert "format 'densest' does not exist" in refused(gptj.model, *cut, "--format", "densest")
    assert "stays dense" in refused(
        gptj.model, "--intervention", "1.fc_in=0.9", "--out", out, "--format", "factored"
    )
    assert "give some with --calibration" in refused(
        gptj.model, "--intervention", "1.fc_in=whitened/0.1", "--out", out
    )
    assert "reads" in refused(gptj.model, *cut[:2], "--out", gptj.model, "--overwrite")
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "not empty" in refused(gptj.model, *cut)
    assert list(tmp_path.iterdir()) == [out]
    config = json.loads((gptj.model / "config.json").read_text())
    remote = tmp_path / "remote"
    shutil.copytree(gptj.model, remote)
    config |= {"auto_map": {"AutoConfig": "own.Config"}, "model_type": "own"}
    (remote / "config.json").write_text(json.dumps(config))
    (remote / "own.py").write_text("raise SystemExit('the code of the checkpoint ran')\n")
    assert "config.json cannot be read" in refused(remote, *cut[:2], "--out", tmp_path / "new")


def test_the_dtype_is_that_of_the_edits(run, tmp_path, families):
    model = families.build("Llama 1-3").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    words = ("--intervention", "1.fc_in=rank:3", "--dtype", "float32", "--no-verify", "--json")
    code, said, _ = run("cut", tmp_path / "base", *words, "--out", tmp_path / "out")
    assert code == 0
    assert {t.dtype for t in tensors(tmp_path / "out").values()} == {torch.float32}
    found = json.loads(said)
    assert found["verdict"] is None
    assert found["composition"] == "1.fc_in=rank:3"
    assert found["parameters"]["base"] == found["parameters"]["here"]


def test_a_model_without_a_tokenizer_is_asked_drawn_tokens(in_process, tmp_path, families):
    families.build("T5").save_pretrained(tmp_path / "base")
    source = ModelSource(str(tmp_path / "base"))
    done = cuts.cut(source, ["*.cross.attn=rank:3"], Wish(tmp_path / "out", "factored"))
    assert (done.verdict.texts, done.verdict.agrees) == (1, True)


def test_an_interrupted_check_says_so_at_once_and_at_the_next_try(gptj, run, monkeypatch, tmp_path):
    out = tmp_path / "out"
    words = ("cut", gptj.model, "--intervention", "1.fc_in=rank:3", "--out", out)
    with monkeypatch.context() as patched:

        def stopped(*_, **__):
            raise Interrupted(2)

        patched.setattr("search.export.afresh._listen", stopped)
        source = ModelSource(str(gptj.model))
        with pytest.raises(Interrupted, match="--overwrite lets the same command replace it"):
            cuts.cut(source, ["1.fc_in=rank:3"], Wish(out))
    with monkeypatch.context() as patched:
        patched.setattr(same_output, "edited_outputs", stopped)
        with pytest.raises(Interrupted, match="written but not verified"):
            cuts.cut(source, ["1.fc_in=rank:3"], Wish(tmp_path / "other"))
    code, _, error = run(*words)
    assert code == 2
    assert "not verified after writing" in error
    assert "--overwrite" in error
    assert run(*words, "--overwrite", "--no-verify")[0] == 0


def flan_t5(folder):
    """Flan-T5-base by its shape: a checkpoint of a whole header and no bytes behind it."""
    shape = dict(
        vocab_size=32128, d_model=768, d_ff=2048, d_kv=64, num_layers=12, num_decoder_layers=12,
        num_heads=12, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    config = T5Config(**shape, architectures=["T5ForConditionalGeneration"], dtype="float32")
    config.tie_word_embeddings = False
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    header, start = {}, 0
    for name, tensor in model.state_dict().items():
        if name.endswith("embed_tokens.weight"):
            continue  # encoder and decoder share one
        stop = start + 4 * tensor.numel()
        header[name] = {
            "dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, stop]
        }  # fmt: skip
        start = stop
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + start)  # a hole of the file system
    return ModelSource(str(folder))


@pytest.mark.parametrize(
    ("types", "outside"),
    [(("q_proj", "k_proj", "v_proj"), 183.9), (("attn",), 162.6)],
)
def test_flan_t5_at_rank_384_has_the_published_counts(tmp_path, types, outside):
    base = Base(flan_t5(tmp_path))
    assert round(base.parameters() / 1e6, 1) == 247.6
    texts = [f"*.{cross}{name}=rank:384" for name in types for cross in ("", "cross.")]
    composition = read_composition(texts, list(base.matrices.values()))
    store = FactorCache(tmp_path / "factors")
    plan = plan_factored(base, base.place(composition), Products(store))
    assert len(plan.ranks) == 36 * (3 if len(types) == 3 else 4)
    small = sum(path.stat().st_size for path in base.companions())
    written = (factored_bytes(base, plan, store) - small) // 4
    assert written == base.parameters(), "384 of 768 in two layers are as many numbers"
    assert round((written - plan.thin_parameters) / 1e6, 1) == outside


def test_interventions_from_files(gptj, tmp_path):
    texts = ["1.fc_in=rank:3", "*.attn=0.5"]
    composition = Composition.parse(["1.fc_in=rank:3", "0.q_proj=keep-bottom/0.5"])
    plain = {
        "list.yaml": yaml.safe_dump(texts),
        "named.yml": yaml.safe_dump({"interventions": texts}),
        "mapping.yaml": "1.fc_in: rank:3\n'*.attn': 0.5\n",
        "list.json": json.dumps(texts),
    }
    for name, text in plain.items():
        (tmp_path / name).write_text(text)
        assert spelled_out([str(tmp_path / name), "2.fc_in=0.1"]) == [*texts, "2.fc_in=0.1"], name
    whole = [str(one) for one in composition.interventions]
    for name, data in {
        "composition.json": composition.to_dict(),
        "recipe.json": {"format": "laser-recipe-1", "composition": composition.to_dict()},
        "interventions.json": {"composition": composition.to_dict(), "trial": 3},
        "healed.json": {"composition": str(composition)},
    }.items():
        (tmp_path / name).write_text(json.dumps(data))
        assert spelled_out([str(tmp_path / name)]) == whole, name
    assert spelled_out([str(tmp_path)]) == whole, "a folder of an export"


def test_the_result_of_a_study_names_its_winner(tmp_path):
    from search.study.sealed_files import write_sealed_json

    result = {"trial": 3, "composition": "1.fc_in=0.1 2.fc_in=0.2", "scores": {}, "comparisons": {}}
    write_sealed_json(tmp_path / "result.json", result)
    try:
        found = spelled_out([str(tmp_path / "result.json")])
    except InputError as error:
        pytest.fail(str(error))
    assert found == ["1.fc_in=0.1", "2.fc_in=0.2"] == spelled_out([str(tmp_path)])
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace("1.fc_in=0.1", "1.fc_in=0.9"))
    with pytest.raises(InputError, match="damaged"):
        spelled_out([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("missing.json", None, "does not exist"),
        ("broken.json", '{"composition": ', "cannot be read as JSON"),
        ("broken.yaml", "a: [1", "is not valid YAML"),
        ("python.yaml", "!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("none.json", "[]", "contains no intervention"),
        ("none.yaml", "", "does not contain a list of interventions"),
        ("numbers.json", "[1, 2]", "does not contain a list of interventions"),
        ("bytes.json", b"\xff\xfe\x00", "cannot be read"),
        ("schema.json", '{"schema": 9, "interventions": []}', "schema 9 is not 1"),
        ("ring.yaml", "&a {composition: *a}", "does not contain a list of interventions"),
    ],
)
def test_a_file_that_is_no_list_of_interventions(tmp_path, name, text, expected):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=expected) as found:
        spelled_out([str(path)])
    assert "\n" not in str(found.value)


def test_evaluate_takes_a_file_too(gptj, run, tmp_path):
    (tmp_path / "cut.yaml").write_text("- 1.fc_in=rank:3\n")
    data = gptj.record.config.task.data
    words = ("--task", "jsonl", "--data", data, "--factors", tmp_path / "f", "--json")
    code, said, _ = run("evaluate", gptj.model, *words, "--intervention", tmp_path / "cut.yaml")
    assert code == 0
    assert list(json.loads(said)["scores"]) == ["baseline", "1.fc_in=rank:3"]


def test_not_a_number_is_never_the_same(tmp_path):
    one = torch.zeros(2, 3)
    nan = replace_one(one, float("nan"))
    assert same_output._gap(one, one.clone(), 1e-4) == (0.0, True)
    assert same_output._gap(nan, nan.clone(), 1e-4)[1] is False
    assert same_output._gap(one, replace_one(one, 1e-3), 1e-4)[1] is False
    assert same_output._gap(one, torch.zeros(2, 4), 1e-4)[1] is False


def replace_one(tensor, value):
    other = tensor.clone()
    other[0, 0] = value
    return other
