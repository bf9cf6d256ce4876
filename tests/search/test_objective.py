"""Several tasks: what they are worth together, and what a trial must not lose on the way."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.console import Console

from search.config import parse_config
from search.report.text import print_verdict, result_lines, sentence
from search.sections import FloorConfig
from search.study.jobs import BASELINE, Job
from search.study.journal import mend_journal
from search.study.objective import Goal, Objective
from search.study.outcomes import Evaluation, read_outcomes
from search.study.verdict import conclude
from search.study.winner import Decision
from tasks.base import Example, Outcome
from tasks.datasets import Split
from tasks.errors import InputError
from tasks.scoring import mean_score

WIKI = Goal("wiki", "perplexity", 0.0, FloorConfig(worse_by=0.01))
QA = Goal("qa", "accuracy", 3.0)
SUM = Goal("sum", "rougeL", 1.0, FloorConfig(worse_by=0.1, limit=0.35))


def test_the_value_is_the_weighted_mean_and_a_watched_task_has_no_part() -> None:
    objective = Objective((QA, SUM, WIKI))
    scores = {"qa": 0.8, "sum": 0.4, "wiki": -3.0}
    assert objective.value(scores) == pytest.approx((3 * 0.8 + 0.4) / 4)
    assert objective.value({**scores, "wiki": -9.0}) == objective.value(scores)
    assert objective.value({"sum": 0.4, "wiki": -3.0}) == pytest.approx(0.4)  # an early chunk


def test_relative_changes_are_shares_of_the_baseline() -> None:
    objective = Objective((replace(QA, weight=1.0), replace(WIKI, weight=1.0)), relative=True)
    before = {"qa": 0.5, "wiki": -3.0}
    assert objective.value(before) == objective.value(before, before) == 0
    after = {"qa": 0.6, "wiki": -3.0 - math.log(1.1)}  # a fifth more, and a perplexity times 1.1
    assert objective.value(after, before) == pytest.approx((0.2 - math.log(1.1)) / 2)
    assert objective.value({"qa": 0.2, "wiki": -3.0}, {"qa": 0.0, "wiki": -3.0}) == 0.1


@pytest.mark.parametrize(
    ("perplexity", "kept"), [(20.0, True), (20.19, True), (20.21, False), (1e9, False)]
)
def test_a_perplexity_may_rise_by_one_per_cent(perplexity: float, kept: bool) -> None:
    objective = Objective((QA, WIKI))
    before = {"qa": 0.5, "wiki": -math.log(20.0)}
    after = {"qa": 0.9, "wiki": -math.log(perplexity)}
    (check,) = objective.floors(after, before)
    assert (check.kept, check.bound) == (kept, pytest.approx(20.2))
    assert check.score == pytest.approx(perplexity)
    assert (objective.violations(after, before)["wiki.worse_by"] <= 0) == kept


@given(st.floats(0, 1), st.floats(0.1, 1))
def test_a_floor_is_missed_by_what_is_lost_beyond_it(score: float, baseline: float) -> None:
    found = Objective((SUM,)).violations({"sum": score}, {"sum": baseline})
    assert found["sum.worse_by"] == pytest.approx(0.9 * baseline - score)
    assert found["sum.limit"] == pytest.approx(0.35 - score)
    kept = [check.kept for check in Objective((SUM,)).floors({"sum": score}, {"sum": baseline})]
    assert kept == [violation <= 0 for violation in found.values()]


def test_the_baseline_keeps_a_floor_relative_to_itself() -> None:
    goals = (replace(SUM, floor=FloorConfig(worse_by=0)), replace(WIKI, floor=SUM.floor))
    for goal in goals:
        found = Objective((goal,)).violations({goal.task: -0.1}, {goal.task: -0.1})
        assert found[f"{goal.task}.worse_by"] <= 0


def test_a_perplexity_of_no_more_than_nothing_is_refused(make_goals) -> None:
    config = make_goals(floor={"limit": -1})
    Objective.of(config, {"wiki": "accuracy"})
    with pytest.raises(InputError, match="'wiki' has limit -1"):
        Objective.of(config, {"wiki": "perplexity"})


# A study of two tasks, with made-up scores -----------------------------------------------------

METRICS = {"qa": "accuracy", "wiki": "perplexity"}


@pytest.fixture
def make_goals():
    """A configuration in which cutting deep is what answers, and what ruins the texts."""

    def make(floor: object = None, trials: int = 30, objective: str = "scores", **search: object):
        return parse_config(
            {
                "model": {"path": "nowhere"},
                "tasks": [
                    {"name": "jsonl", "label": "qa"},
                    {"name": "perplexity", "label": "wiki", "weight": 0, "floor": floor},
                ],
                "objective": objective,
                "space": {"max_interventions": 2},
                "search": {"strategy": "tpe", "trials": trials, **search},
            },
            "test",
        )

    return make


def outcomes_of(effect: str, part: str) -> list[Outcome]:
    """A cut matrix answers better the deeper it is cut, and reads texts as much worse."""
    lost = sum(1 - int(cut.rpartition(":")[2]) / 64 for cut in effect.split())
    known = round(8 + 4 * lost)
    asked = [
        Outcome(f"qa/{part}{n}", f"{part}{n}", float(n < known), -1.0, "x", task="qa")
        for n in range(16)
    ]
    nats = 3.0 + 0.01 * lost
    texts = [
        Outcome(f"wiki/{part}{n}", f"t{part}{n}", -nats, -nats, None, weight=9.0, task="wiki")
        for n in range(2)
    ]
    return asked + texts


def answer(study, job: Job) -> Evaluation:
    outcomes = outcomes_of(job.effect, job.part)
    scores = {"qa": mean_score(outcomes[:16]), "wiki": mean_score(outcomes[16:])}
    return Evaluation(
        *(job.name, study.identity.study_id, str(job.composition), job.effect, job.part),
        *(study.objective.value(scores, job.baseline), 1.0, {}, tuple(outcomes)),
        scores=scores,
    )


def work(study) -> None:
    while (job := study.next_job()) is not None:
        study.finish(job, answer(study, job))


@pytest.fixture
def open_goals(open_study, make_goals):
    """A study of both tasks, whose metrics it knows as a plan would tell it."""

    def make(folder: Path, **options: object):
        config = make_goals(**options)
        return open_study(folder, config, objective=Objective.of(config, METRICS))

    return make


def table(study) -> list[tuple[object, ...]]:
    return [(t.number, t.params, t.score, t.state, t.violations, t.scores) for t in study.trials()]


def test_what_breaks_a_floor_never_wins_and_says_by_how_much(tmp_path: Path, open_goals) -> None:
    study = open_goals(tmp_path / "free")
    work(study)
    best = study.winner()
    assert best.scores["wiki"] < -3.01 - 1e-9, "without a floor the deepest cut wins"
    assert not any(t.violations for t in study.trials())
    study = open_goals(tmp_path / "floor", floor={"worse_by": 0.005})
    work(study)
    assert study.spent == 30
    bound = -3.0 - math.log1p(0.005)
    for trial in study.trials():
        scores = trial.scores
        assert trial.violations == {"wiki.worse_by": pytest.approx(bound - scores["wiki"])}
        assert trial.feasible == (scores["wiki"] >= bound)
        assert trial.score == scores["qa"]
    feasible = [t for t in study.trials() if t.feasible]
    assert 0 < len(feasible) < len(study.trials())
    assert study.winner().score == max(t.score for t in feasible)
    assert max(t.score for t in study.trials()) > study.winner().score


@pytest.mark.slow
def test_the_sampler_learns_what_is_infeasible(tmp_path: Path, open_goals) -> None:
    """The same landscape; only trials that know the floor turn from what breaks it."""
    broken = {}
    for name, floor in (("free", None), ("floor", {"worse_by": 0.005})):
        broken[name] = 0
        for seed in range(2):
            study = open_goals(tmp_path / f"{name}{seed}", floor=floor, trials=40, seed=seed)
            work(study)
            bound = -3.0 - math.log1p(0.005)
            late = study.trials()[15:]
            broken[name] += sum(t.scores["wiki"] < bound for t in late)
    assert broken["floor"] < 0.8 * broken["free"], broken


def test_no_trial_begins_before_the_baseline_that_judges_it(tmp_path: Path, open_goals) -> None:
    for name, options in (
        ("floor", {"floor": {"worse_by": 0.1}}),
        ("r", {"objective": "relative"}),
    ):
        study = open_goals(tmp_path / name, **options)
        first = study.next_job()
        assert first.name == BASELINE
        assert study.next_job() is None
        assert study.running(), "an executor must wait, not end"
        study.finish(first, answer(study, first))
        assert study.next_job().number == 0
    study = open_goals(tmp_path / "free")
    assert [study.next_job().name for _ in range(2)] == [BASELINE, "trial-00000"]


@pytest.mark.parametrize("objective", ["scores", "relative"])
def test_killed_at_any_write_it_ends_as_if_uninterrupted(
    tmp_path: Path, open_goals, monkeypatch, objective: str
) -> None:
    options = {"floor": {"worse_by": 0.005}, "trials": 8, "objective": objective}
    whole = open_goals(tmp_path / "whole", **options)
    work(whole)
    append = JournalFileBackend.append_logs
    folder = tmp_path / "killed"
    kills = 0

    class Killed(BaseException):
        pass

    for after in itertools.cycle([5, 11, 2, 7, 3]):
        writes = itertools.count(1)

        def dying(self, logs, writes=writes, after=after) -> None:
            if next(writes) > after:
                raise Killed
            append(self, logs)

        monkeypatch.setattr(JournalFileBackend, "append_logs", dying)
        try:
            folder.mkdir(exist_ok=True)
            mend_journal(folder)
            study = open_goals(folder, **options)
            work(study)
            break
        except Killed:
            kills += 1
            assert kills < 300
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    assert kills > 5
    assert table(open_goals(folder, **options)) == table(whole)


def test_a_task_that_gives_no_number_fails_the_trial_even_at_weight_0(
    tmp_path: Path, open_goals
) -> None:
    study = open_goals(tmp_path, floor={"worse_by": 0.005})
    job = study.next_job()
    study.finish(job, answer(study, job))
    job = study.next_job()
    found = answer(study, job)
    study.finish(job, replace(found, scores={**found.scores, "wiki": math.nan}))
    trial = study.trials()[job.number]
    assert trial.state == TrialState.FAIL
    assert "score of wiki nan" in trial.reason


def examples(part: str) -> list[Example]:
    return [
        Example(o.example_id, o.group, f"Question {o.example_id}?", "x", task=o.task)
        for o in outcomes_of("", part)
    ]


@pytest.mark.parametrize("objective", ["scores", "relative"])
def test_the_verdict_is_on_the_objective_each_task_and_each_floor(
    tmp_path: Path, open_goals, objective: str
) -> None:
    study = open_goals(tmp_path, floor={"worse_by": 0.005}, objective=objective)
    work(study)
    winner = study.winner()
    split = Split(examples("validation"), examples("test"))
    found = conclude(
        tmp_path, study.identity, Decision(winner, infeasible=7), split, study.objective
    )
    study_id = study.identity.study_id
    before = read_outcomes(tmp_path, "baseline-test", study_id, "")
    after = read_outcomes(tmp_path, f"trial-{winner.number:05d}-test", study_id, winner.effect)
    test = found.comparisons["test"]
    assert test.difference == pytest.approx(after.score - before.score)
    assert (test.baseline, test.winner) == (
        pytest.approx(before.score),
        pytest.approx(after.score),
    )
    assert test.n == 16, "a task of weight 0 has no part in the objective"
    assert found.tasks["wiki"].metric == "perplexity"
    assert found.tasks["wiki"].scores["winner"]["test"].score == after.scores["wiki"]
    assert found.tasks["qa"].comparisons["test"].test == "exact McNemar"
    (check,) = found.floors["test"]
    assert check.kept
    assert check.bound == pytest.approx(math.exp(3.0) * 1.005)
    assert found.infeasible == 7
    console = Console(width=100, record=True, file=StringIO())
    print_verdict(console, found, study.objective)
    text = console.export_text()
    for words in (
        f"{study.objective.metric} on test from ",
        "qa (accuracy)",
        "wiki (perplexity)",
        "7 trials broke a floor on validation",
        f"keeps the floor of wiki on test: perplexity {check.score:.4f}, at most 20.1860 allowed",
    ):
        assert words in text
    read = json.loads((tmp_path / "result.json").read_text())
    assert any("floor of wiki" in line for line in result_lines(read, study.objective))


def test_where_nothing_wins_the_floors_are_named(tmp_path: Path, open_goals) -> None:
    study = open_goals(tmp_path, floor={"worse_by": 0.0}, trials=5)
    work(study)
    assert study.winner() is None, "every cut loses something here"
    split = Split(examples("validation"), examples("test"))
    found = conclude(tmp_path, study.identity, Decision(None, infeasible=5), split, study.objective)
    assert sentence(found, found.metric).startswith("No composition that keeps every floor beat")
    console = Console(width=100, record=True, file=StringIO())
    print_verdict(console, found, study.objective)
    assert "wiki (perplexity)" in console.export_text()
