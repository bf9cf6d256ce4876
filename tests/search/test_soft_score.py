"""Trials are ranked by accuracy and quadratic score (decision 0041)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.config import parse_config, read_config, read_frozen, write_config
from search.report.content import Content
from search.report.frames import trials_frame
from search.study.identity import digest_settings
from search.study.objective import Objective
from search.study.outcomes import Evaluation, outcome_bytes, parse_outcomes
from search.study.race import seeded_order
from search.study.trials import TrialRecord
from tasks.base import Outcome
from tasks.scoring import mean_quadratic_score, mean_score, quadratic_score

PLAIN = {"model": {"path": "x"}, "task": {"name": "jsonl"}}
SOFT = Objective.of(parse_config(PLAIN, "x"), {"": "accuracy"})


def evaluated(study, job, right: list[float], probabilities: list[float]) -> Evaluation:
    outcomes = tuple(
        Outcome(str(n), str(n), score, math.log(p), "x")
        for n, (score, p) in enumerate(zip(right, probabilities, strict=True))
    )
    return Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        mean_score(outcomes), 0.5, {"total": 0.0}, outcomes,
        quadratic=mean_quadratic_score(outcomes),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "metric", "weight"),
    [
        ({}, "accuracy", 1.0),
        ({}, "exact_match", 1.0),
        ({"search": {"quadratic_weight": 0.5}}, "accuracy", 0.5),
        ({"search": {"quadratic_weight": 0}}, "accuracy", 0.0),
        ({}, "f1", 0.0),
        ({}, "perplexity", 0.0),
        ({"task": {"name": "jsonl", "scoring": "paper"}}, "accuracy", 0.0),
        ({"task": None, "tasks": [{"name": "jsonl"}]}, "accuracy", 0.0),
    ],
)
def test_where_answers_are_right_or_wrong_by_the_papers_code_they_are_not(given, metric, weight):
    objective = Objective.of(parse_config(PLAIN | given, "x"), {"": metric, "jsonl": metric})
    assert objective.quadratic_weight == weight


def test_what_a_race_compares_adds_up_to_what_trials_are_ranked_by() -> None:
    outcomes = tuple(
        Outcome(str(n), str(n), float(n % 3 == 0), -0.1 * n, "x", weight=1 + n % 2)
        for n in range(50)
    )
    found = Evaluation(
        "a", "b", "", "", "validation", mean_score(outcomes), 1.0, {}, outcomes,
        quadratic=mean_quadratic_score(outcomes),
    )  # fmt: skip
    weights = [o.weight for o in outcomes]
    pairs = math.fsum(w * SOFT.paired(o) for w, o in zip(weights, outcomes, strict=True))
    assert SOFT.soft_score(found) == pytest.approx(pairs / math.fsum(weights), rel=1e-12)
    assert SOFT.merit(found) == (SOFT.soft_score(found), -1.0)
    assert replace(SOFT, quadratic_weight=0.0).merit(found) == (found.score, -1.0)


def test_the_quadratic_score_is_brier_where_all_answers_are_known() -> None:
    """Saying what one believes scores best; being surer of everything does not."""
    open_answer = Outcome("a", "a", 1.0, math.log(0.25), "x")
    assert quadratic_score(open_answer) == pytest.approx(1 - 0.75**2)
    chosen = replace(open_answer, brier=0.9)
    assert quadratic_score(chosen) == pytest.approx(0.1)
    assert mean_quadratic_score([open_answer, replace(chosen, weight=3.0)]) == pytest.approx(
        (0.4375 + 3 * 0.1) / 4
    )


def test_an_evaluation_of_an_earlier_version_is_ranked_by_its_score() -> None:
    now = Evaluation("a", "b", "", "", "validation", 0.5, 1.0, {}, (), quadratic=0.25)
    read = parse_outcomes(outcome_bytes(now), "b", "")
    assert read is not None
    assert read.quadratic == 0.25
    assert SOFT.soft_score(read) == 0.75
    assert SOFT.merit(replace(read, quadratic=None)) == (0.5, -1.0)


def test_one_right_answer_less_is_outweighed_by_many_that_came_nearer(
    tmp_path: Path, open_study, make_config
) -> None:
    study = open_study(tmp_path / "s", make_config(trials=2), objective=SOFT)
    for right, near in ((4, 0.1), (6, 0.1), (5, 0.3)):
        job = study.next_job()
        answers = [1.0] * right + [0.0] * (20 - right)
        study.finish(job, evaluated(study, job, answers, [near] * 20))
    first, second = study.trials()
    assert (first.values, first.soft_score) == ((0.3,), pytest.approx(0.3 + 1 - 0.9**2))
    assert (second.values, second.soft_score) == ((0.25,), pytest.approx(0.25 + 1 - 0.7**2))
    assert study.winner() == second
    assert study.history.best().number == second.number
    assert study.history.baseline.merit == (pytest.approx(0.2 + 1 - 0.9**2), -0.5)
    again = open_study(tmp_path / "s", make_config(trials=2), objective=SOFT)
    assert [t.tried() for t in again.trials()] == [t.tried() for t in (first, second)]


def test_a_trial_that_was_stopped_has_the_other_answers_of_the_unedited_model(
    tmp_path: Path, open_study, make_config
) -> None:
    config = make_config(pruner="race", chunks=4, trials=1)
    study = open_study(tmp_path / "s", config, objective=SOFT)
    baseline = study.next_job()
    right = [1.0] * 100 + [0.0] * 100
    study.finish(baseline, evaluated(study, baseline, right, [0.5] * 200))
    job = study.next_job()
    asked = sorted(map(str, range(200)), key=seeded_order)[:50]
    lost = dict.fromkeys(asked, 0.0 + 1 - 0.9**2)
    assert study.report(job, 1, 0.0, lost)
    study.prune(job)
    (trial,) = study.trials()
    hits = sum(right[int(name)] for name in asked)
    assert trial.soft_score == pytest.approx(0.5 + 0.75 - (hits + 50 * (0.75 - 0.19)) / 200)
    assert trial.tried().soft_score == trial.soft_score


def test_people_see_what_trials_are_ranked_by_and_lists_go_by_it() -> None:
    assert SOFT.ranking == "accuracy + quadratic score"
    assert replace(SOFT, quadratic_weight=0.0).ranking == ""
    trials = [
        TrialRecord.of(trial(0, 0.3, soft_score=0.5)),
        TrialRecord.of(trial(1, 0.2, soft_score=0.6)),
        TrialRecord.of(trial(2, None, TrialState.PRUNED, soft_score=0.9)),
    ]
    listed = Content.listed.fget(SimpleNamespace(trials=trials_frame(trials)))
    assert listed["trial"].tolist() == [1, 0, 2]
    old = [TrialRecord.of(trial(0, 0.3)), TrialRecord.of(trial(1, 0.4))]
    listed = Content.listed.fget(SimpleNamespace(trials=trials_frame(old)))
    assert listed["trial"].tolist() == [1, 0]


def trial(
    number: int, value: float | None, state: TrialState = TrialState.COMPLETE, **known: float
) -> FrozenTrial:
    found = create_trial(value=value, state=state, user_attrs=known)
    found.number = number
    return found


def test_a_study_that_began_before_goes_on_as_it_was(tmp_path: Path) -> None:
    config = parse_config({**PLAIN, "factors": str(tmp_path)}, "x")
    write_config(config, tmp_path / "study.yaml")
    assert read_frozen(tmp_path / "study.yaml").search.quadratic_weight == 1.0
    old = yaml.safe_load((tmp_path / "study.yaml").read_text())
    del old["search"]["quadratic_weight"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(old))
    assert read_config(tmp_path / "study.yaml").search.quadratic_weight == 1.0
    frozen = read_frozen(tmp_path / "study.yaml")
    assert frozen.search.quadratic_weight == 0.0
    assert digest_settings(frozen) != digest_settings(config)
