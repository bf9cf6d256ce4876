"""A study within a budget: a winner need not beat the unedited model, only others of its size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.budget import Budget
from search.config import StudyConfig, parse_config, write_config
from search.cuts.refs import MatrixRef
from search.report.html import render
from search.report.live import plain
from search.report.text import front_lines
from search.space import Space
from search.strategies.base import Setting
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.objective import Objective
from search.study.outcomes import Evaluation, read_outcomes
from search.study.study_record import CONFIG, StudyRecord
from search.study.subject import Subject
from search.study.summary import summarise
from search.study.trials import kept_share
from tasks.base import Outcome
from tasks.errors import InputError

REFS = tuple(MatrixRef(n, kind) for n in range(6) for kind in ("fc_in", "fc_out"))
SHAPES = dict.fromkeys(REFS, (32, 16))
IDENTITY = Identity("budgeted", "2026-01-01", {}, "w", "c", "e", "s")


def config_of(kept, **search) -> StudyConfig:
    return parse_config(
        {
            "model": {"path": "nowhere"},
            "task": {"name": "jsonl"},
            "space": {"budget": {"kept": kept}},
            "search": {"trials": 14, **search},
        },
        "test",
    )


def plain_config() -> StudyConfig:
    return parse_config({"model": {"path": "nowhere"}, "task": {"name": "jsonl"}}, "test")


def open_at(folder: Path, config: StudyConfig, objective: Objective | None = None) -> DrivenStudy:
    folder.mkdir(exist_ok=True)
    budget = Budget.build(config.space.budget, REFS, list(SHAPES.values()))
    space, full = Space.within(budget), dict.fromkeys(REFS, 16)
    rising = {cut: -0.01 * cut.rule.value * (1 + cut.matrix.layer) for cut in budget.screened()}
    setting = Setting(space, full, config.search.seed, screen=rising)
    IDENTITY.write(folder)
    write_config(config, folder / CONFIG)
    subject = Subject(folder, IDENTITY, config, space, full, objective, setting)
    return DrivenStudy.open(subject)


def score(study: DrivenStudy, job) -> float:
    """Below the unedited model's 0.9 in any case; late layers need their ranks."""
    cuts = job.composition.interventions
    lost = sum((1 + c.matrix.layer) / 6 * (1 - c.rule.value / 11) ** 2 for c in cuts)
    return 0.9 - 0.02 * lost


def evaluate(study: DrivenStudy, job, shift: float = 0.0) -> Evaluation:
    value = score(study, job)
    found = tuple(Outcome(str(n), str(n), value + 0.001 * n, -0.1, "x") for n in range(4))
    mean = sum(o.score for o in found) / 4
    return Evaluation(
        job.name, "budgeted", str(job.composition), job.effect, job.part,
        mean, 1 - mean, {"total": 0.0}, found,
    )  # fmt: skip


def drive(study: DrivenStudy, most: int = 1000) -> list[str]:
    tried = []
    for _ in range(most):
        if (job := study.next_job()) is None:
            break
        tried.append(job.name)
        study.finish(job, evaluate(study, job))
    return tried


def summary_of(study: DrivenStudy):
    shares = study.config.space.budget.shares
    return summarise(
        study.trials(), study.baseline, study.budget, study.objective,
        chosen=study.chosen(), shares=shares,
    )  # fmt: skip


def test_the_best_within_the_budget_wins_and_is_scored_on_test(tmp_path: Path) -> None:
    study = open_at(tmp_path / "s", config_of(0.5))
    tried = drive(study)
    winner = study.winner()
    best = max(study.trials(), key=lambda trial: trial.merit)
    assert winner == best and winner.score < study.baseline.score
    assert f"trial-{winner.number:05d}-test" in tried
    assert winner.kept == kept_share(winner.composition, SHAPES) <= 0.5
    assert winner.number > 1, "moves found more than uniform and one shot"


def test_each_share_has_its_best_and_views_are_short(tmp_path: Path) -> None:
    study = open_at(tmp_path / "s", config_of([0.6, 0.35]))
    drive(study)
    found = summary_of(study)
    assert list(found.by_share) == [0.6, 0.35]
    assert found.winner == found.by_share[0.6], "the larger budget scores higher"
    lines = front_lines(found)
    assert lines[0] == "best within each budget, on validation:"
    size = f" cuts, kept {100 * found.by_share[0.6].kept:.1f} %"
    assert lines[1].startswith("  0.6: 0.8") and size in lines[1]
    assert len(plain(found)) < 200
    record = StudyRecord.read(tmp_path / "s")
    assert record.summary.by_share.keys() == found.by_share.keys()
    assert record.budget.shapes == tuple(SHAPES.values()) and record.budget.refs == REFS
    assert record.summary.winner.number == found.winner.number
    page = render(record)
    for name in ("fig-front", "fig-kept-0-6", "fig-kept-0-35", "fig-history"):
        assert f'id="{name}"' in page
    listed = re.findall(r'<td class="code">(.*?)</td>', page)
    assert size in page
    assert max(text.count("=") for text in listed) <= 8


def test_a_resumed_study_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = open_at(tmp_path / "whole", config_of([0.6, 0.35]))
    drive(whole)
    for most in (4, 9):
        folder = tmp_path / f"cut{most}"
        drive(open_at(folder, config_of([0.6, 0.35])), most)
        study = open_at(folder, config_of([0.6, 0.35]))
        drive(study)
        assert [t.effect for t in study.trials()] == [t.effect for t in whole.trials()]


def test_a_race_is_run_against_trials_of_the_same_size(tmp_path: Path) -> None:
    config = config_of([0.6, 0.35], pruner="race", chunks=2)
    study = open_at(tmp_path / "s", config)
    drive(study, 5)  # the unedited model and the four beginnings
    bests = summary_of(study).by_share
    for share in (0.6, 0.35):
        job = study.next_job()
        rival = study._rivals.of(job.composition)
        assert sum(rival.scores.values()) / 4 == bests[share].score < study.baseline.score


def test_hits_and_misses_race_by_their_log_probabilities(tmp_path: Path) -> None:
    config = config_of(0.5, pruner="race", chunks=2)
    assert Objective.of(config, {"": "accuracy"}).by_log_loss
    for other, metric in ((config, "f1"), (config, "perplexity"), (plain_config(), "accuracy")):
        assert not Objective.of(other, {"": metric}).by_log_loss
    one = Outcome("a", "a", 1.0, -0.25, "x")
    assert Objective.of(config, {"": "accuracy"}).paired(one) == -0.25
    assert Objective.of(config, {"": "f1"}).paired(one) == 1.0
    study = open_at(tmp_path / "s", config, Objective.of(config, {"": "accuracy"}))
    drive(study, 4)
    job = study.next_job()
    assert set(study._rivals.of(job.composition).scores.values()) == {-0.1}


def test_nothing_is_stopped_for_not_beating_the_unedited_model(tmp_path: Path) -> None:
    study = open_at(tmp_path / "s", config_of(0.5, stop={"no_gain_trials": 9}))
    drive(study)
    assert study.spent > 9


def test_a_pruned_trial_is_no_base(tmp_path: Path) -> None:
    study = open_at(tmp_path / "s", config_of(0.5, pruner="race", chunks=2))
    drive(study, 3)
    job = study.next_job()
    study.prune(job)
    assert study.trials()[-1].state == TrialState.PRUNED
    drive(study)
    assert read_outcomes(tmp_path / "s", "trial-00003", "budgeted", study.trials()[3].effect)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"refine": 3}}, "does not go with search.refine"),
        ({"search": {"pareto": True}}, "does not go with search.pareto"),
        ({"products": "svd-lowrank"}, "does not go with products: svd-lowrank"),
        ({"search": {"pruner": "median", "chunks": 2}}, "would compare trials of several budgets"),
    ],
)
def test_what_a_budget_does_not_go_with_is_refused(change, said) -> None:
    data = {
        "model": {"path": "nowhere"},
        "task": {"name": "jsonl"},
        "space": {"budget": {"kept": [0.5, 0.3]}},
    }
    with pytest.raises(InputError, match=said):
        parse_config(data | change, "test")
