"""What is published with an export: entries that the hub can read, and no path of this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from search.export.card import Contents, healed_card, model_card
from search.export.run import read_edit
from search.sections import GoalConfig
from search.study.objective import Objective

CONTENTS = Contents("dense", "causal", "load()", {}, [], {"base tensors": "abc123"}, "made", (9, 9))


def _comparison(before: float, after: float) -> dict[str, object]:
    return {
        "n": 12,
        "groups": 12,
        "baseline": before,
        "winner": after,
        "difference": after - before,
        "low": -0.1,
        "high": 0.3,
        "p_value": 0.04,
        "test": "McNemar",
        "fixed": 3,
        "broken": 1,
    }


@pytest.fixture
def concluded(gptj):
    """The record of a study whose trial 0 was scored on validation and on test."""
    parts = {"validation": _comparison(0.25, 0.5), "test": _comparison(0.2, 0.4)}
    return replace(gptj.record, result={"trial": 0, "comparisons": parts})


def _card(record) -> ModelCard:
    return ModelCard(model_card(record, record.trials[0], CONTENTS, None))


def test_each_part_is_an_entry_of_its_own_and_the_hubs_library_reads_it_back(concluded) -> None:
    card = _card(concluded)
    found: list[EvalResult] = card.data.eval_results
    values = {(r.dataset_split, r.metric_type): r.metric_value for r in found}
    assert values == {("validation", "accuracy"): 0.5, ("test", "accuracy"): 0.4}
    assert all(r.task_type == "text-generation" and r.dataset_type == "jsonl" for r in found)
    (index,) = eval_results_to_model_index(card.data.model_name, found)
    assert len(index["results"]) == 2
    for entry in index["results"]:
        names = [metric["name"] for metric in entry["metrics"]]
        assert len(names) == len(set(names)) == 1
        assert entry["dataset"]["split"] in entry["dataset"]["name"]
    assert model_index_to_eval_results([index]) == (card.data.model_name, found)
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


def test_each_of_several_tasks_is_an_entry_by_part(concluded) -> None:
    goals = [GoalConfig(name="jsonl", label=label) for label in ("a", "b")]
    config = concluded.config.model_copy(update={"task": None, "tasks": goals})
    objective = Objective.of(config, {"a": "accuracy", "b": "perplexity"})
    tasks = {
        name: {"comparisons": concluded.result["comparisons"], "metric": "accuracy"}
        for name in ("a", "b")
    }
    record = replace(
        concluded,
        config=config,
        summary=replace(concluded.summary, objective=objective),
        result={**concluded.result, "tasks": tasks},
    )
    found = _card(record).data.eval_results
    kinds = {(r.dataset_type, r.dataset_split, r.metric_type) for r in found}
    assert len(kinds) == len(found) == 6
    assert all(" " not in r.dataset_type and "," not in r.dataset_type for r in found)


def test_a_data_set_of_the_hub_is_named_by_its_id(concluded) -> None:
    task = concluded.config.task.model_copy(update={"data": "someone/questions:one"})
    record = replace(concluded, config=concluded.config.model_copy(update={"task": task}))
    assert {r.dataset_type for r in _card(record).data.eval_results} == {"someone/questions"}


def test_the_card_names_program_and_version_and_no_registry(concluded) -> None:
    text = str(_card(concluded))
    assert f"laser-search {version('laser-search')}" in text
    assert "pypi" not in text and "pip install" not in text


def test_the_model_is_called_by_name_and_digest(concluded) -> None:
    card = _card(concluded)
    assert "`base`" in card.text and "`abc123`" in card.text
    assert card.data.base_model is None
    source = concluded.config.model.model_copy(update={"path": "someone/model"})
    remote = replace(concluded, config=concluded.config.model_copy(update={"model": source}))
    assert _card(remote).data.base_model == "someone/model"
    assert "# model after LASER" in _card(remote).text


@pytest.mark.parametrize("form", ["dense", "factored", "patch", "recipe", "lora"])
def test_no_file_of_an_export_holds_a_path_of_this_machine(gptj, run, tmp_path, form) -> None:
    if form == "lora":
        pytest.importorskip("peft")
    out = tmp_path / "out"
    trial = 1 if form == "lora" else 0
    words = ("--format", form, "--trial", trial, "--no-verify")
    assert run("export", gptj.folder, "--out", out, *words)[0] == 0
    _assert_no_paths(out, gptj.folder, gptj.model, tmp_path)
    card = (out / "README.md").read_text()
    assert f"laser-search export {gptj.folder.name} --out out --format {form}" in card
    assert json.loads((out / "interventions.json").read_text())["base_model"] == "base"


def test_what_apply_writes_has_no_path_even_of_an_older_patch(gptj, run, tmp_path) -> None:
    recipe, out = tmp_path / "recipe", tmp_path / "out"
    words = ("--format", "recipe", "--trial", 0, "--no-verify")
    assert run("export", gptj.folder, "--out", recipe, *words)[0] == 0
    older = json.loads((recipe / "recipe.json").read_text())
    assert read_edit(recipe)[0].base_model == "base"
    older["base_model"] = str(gptj.model)
    (recipe / "recipe.json").write_text(json.dumps(older))
    assert run("apply", recipe, "--model", gptj.model, "--out", out)[0] == 0
    _assert_no_paths(out, gptj.folder, gptj.model, tmp_path)


def test_the_card_of_a_healed_model_has_no_path(concluded) -> None:
    found = {
        "composition": "1.fc_in=0.1",
        "recipe": {"steps": 1, "method": "lora", "learning_rate": 0.1, "batch": 1, "seed": 0},
        "examples": 3,
        "train": "/home/ann/train.jsonl",
        "left_out": 0,
        "parameters": {"base": 1, "healed": 1, "trained": 1},
        "scores": {},
        "comparisons": {},
    }
    text = healed_card(concluded, found, None)
    assert "`train.jsonl`" in text and "/home" not in text
    assert str(concluded.config.model.path) not in text
    assert concluded.identity.checkpoint[:16] in text


def _assert_no_paths(out: Path, *places: Path) -> None:
    """No file below `out` names one of `places`, or any folder above them but the root's own."""
    roots = {str(place).encode() for place in places} | {str(Path.home()).encode()}
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files, f"an export was to be in {out}"
    for file in files:
        data = file.read_bytes()
        for root in roots:
            assert root not in data, (file.name, root)
