"""A whole study within a budget: planned, searched, judged, and exported at the size promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import search.demo
from search.budget import Budget
from search.config import parse_config
from search.export.factored import FactoredLinear, load_factored
from search.here import run_here
from search.outline import Outline
from search.plan import make_plan
from search.report.text import sentence
from search.results import Study
from search.space import Space
from search.study.study_record import StudyRecord
from search.study.verdict_claim import advice
from search.weights.matrices import all_matrices
from tasks.errors import InputError

DEMO = Path(search.demo.__file__).parent


def config_of(folder: Path, **space):
    data = folder / "q.jsonl"
    if not data.exists():
        lines = (DEMO / "questions.jsonl").read_text().splitlines()[:60]
        data.write_text("\n".join(lines))
    return parse_config(
        {
            "model": {"path": str(DEMO / "model")},
            "task": {"name": "jsonl", "data": str(data)},
            "split": {"validation": 0.5},
            "space": {"matrices": ["all"], **space},
            "search": {"trials": 6},
            "calibration": {"tokens": 400},
            "factors": str(folder / "factors"),
            "guard": None,
        },
        "test",
    )


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory):
    """The folder of a finished study of plain and whitened cuts within 45 %, and its verdict."""
    folder = tmp_path_factory.mktemp("budget")
    config = config_of(folder, budget={"kept": 0.45, "kind": ["keep-top", "whitened"]})
    verdict = run_here(config, folder / "study")
    return folder / "study", verdict


def test_the_plan_says_the_size(tmp_path) -> None:
    outline = Outline.of(make_plan(config_of(tmp_path, budget={"kept": [0.45, 0.3]})))
    whole = sum(out * into for _, (out, into) in outline.matrices)
    assert outline.budgets == {0.45: int(0.45 * whole), 0.3: int(0.3 * whole)}
    deep = {"layers": [1, 2], "budget": {"kept": 0.45}}
    kept = [make_plan(config_of(tmp_path, **s)).config.reuse for s in (deep, {"rho": [0.1]})]
    assert all(reuse.memory_gib and reuse.file_gib for reuse in kept)
    assert not make_plan(config_of(tmp_path, budget={"kept": 0.45})).config.reuse.memory_gib
    line = outline.line()
    assert f"within {int(0.45 * whole):,} (45.0%) or {int(0.3 * whole):,} (30.0%) of" in line


def test_it_is_searched_judged_and_said_in_short(budgeted) -> None:
    folder, verdict = budgeted
    record = StudyRecord.read(folder)
    assert [trial.complete for trial in record.trials] == [True] * 6
    kinds = [{cut.kind for cut in trial.cuts} for trial in record.trials[:4]]
    assert kinds == [{"keep-top"}, {"whitened"}] * 2
    winner = record.summary.winner
    assert verdict.trial == winner.number and verdict.kept == winner.kept <= 0.45
    said = sentence(verdict, verdict.metric)
    assert f"{len(winner.cuts)} cuts, kept 4" in said and "rank:" not in said
    assert advice(verdict, folder)[0].endswith("--format factored")
    stored = json.loads((folder / "result.json").read_text())
    assert winner.text in json.dumps(stored), "scripts have it whole"


def test_python_has_the_pictures(budgeted, tmp_path) -> None:
    study = Study.open(budgeted[0])
    count = len(study.record.budget.refs)
    assert len(study.kept_map().axes[0].texts) == count
    assert [line.get_label() for line in study.front().axes[0].get_lines()][-1] == "uncut"


def test_it_is_exported_at_the_size_promised(budgeted, tmp_path, run) -> None:
    folder, _ = budgeted
    out = tmp_path / "out"
    code, said, error = run("export", folder, "--out", out, "--format", "factored", "--no-verify")
    assert code == 0, error
    record = StudyRecord.read(folder)
    winner = record.summary.winner
    assert f"kept {100 * winner.kept:.1f} %" in said
    model = load_factored(out)
    sizes = record.budget
    thin = [layer for layer in model.modules() if isinstance(layer, FactoredLinear)]
    inside = sum(layer.weight.numel() + layer.up.weight.numel() for layer in thin)
    cut = {i.matrix for i in winner.cuts}
    whole = sum(size for ref, size in zip(sizes.refs, sizes.sizes, strict=True) if ref not in cut)
    assert inside + whole == round(winner.kept * sizes.total) <= 0.45 * sizes.total
    card = (out / "README.md").read_text()
    assert f"It keeps {winner.kept:.1%} of the parameters" in card
    assert next(model.parameters()).dtype == torch.float32


def test_a_warm_start_above_the_budget_is_refused(tmp_path) -> None:
    config = config_of(tmp_path, budget={"kept": 0.45})
    search = config.search.model_copy(update={"warm_start": ["0.fc_in=rank:2"]})
    with pytest.raises(InputError, match=r"allocation of space\.budget.*at most 0\.45"):
        make_plan(config.model_copy(update={"search": search}))


def test_parts_of_a_fused_weight_are_said_to_stay_dense(tmp_path) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50))
    found = [matrix for matrix in all_matrices(model) if matrix.searchable]
    plan = make_plan(config_of(tmp_path, budget={"kept": 0.45}))
    assert not any("factored export" in notice for notice in plan.notices)
    sizes = Budget.build(plan.config.space.budget, [m.ref for m in found], [m.shape for m in found])
    fused = replace(plan, matrices=tuple(found), space=Space.within(sizes))
    (said,) = [notice for notice in fused.notices if "factored export" in notice]
    assert said.startswith("3 matrices of the budget, such as 0.q_proj, are parts of a larger")
