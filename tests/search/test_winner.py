"""Rules that end a study, the confirmation part, and a front of score and size."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.study import jobs as names
from search.study.driven_study import DrivenStudy
from search.study.jobs import CONFIRM_BASELINE, TEST_BASELINE, confirm_name
from search.study.outcomes import outcome_file
from search.study.subject import Subject
from search.study.trials import kept_share
from search.study.winner import choose_finalists, pareto_front
from tasks.base import Outcome
from tasks.errors import InputError


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def drive_parts(evaluation):
    """Work a study off; on confirm a trial scores what `scores` says of its effect, else 0.5."""

    def go(study, scores=None, limit=1000) -> list:
        jobs = []
        while len(jobs) < limit and (job := study.next_job()) is not None:
            jobs.append(job)
            found = evaluation(study, job)
            if job.part == "confirm":
                score = (scores or {}).get(job.effect, 0.5)
                outcome = Outcome("c", "c", score, -1.0, "x")
                found = replace(found, score=score, outcomes=(outcome,))
            study.finish(job, found)
        return jobs

    return go


def test_a_study_without_gains_ends_and_says_why(tmp_path: Path, make_config, open_study, drive):
    config = make_config(trials=60, stop={"no_gain_trials": 6})
    study = open_study(tmp_path, config)
    drive(study)
    assert "no_gain_trials is 6" in study.ended
    best = max(study.trials(), key=lambda t: t.values[0])
    assert study.spent == best.number + 1 + 6 < 60
    assert outcome_file(tmp_path, TEST_BASELINE).exists()
    resumed = open_study(tmp_path, config)
    assert resumed.next_job() is None
    assert resumed.spent == study.spent
    assert resumed.ended == study.ended
    more = open_study(tmp_path, make_config(trials=60, stop={"no_gain_trials": 9}))
    drive(more, limit=3)
    assert more.spent == study.spent + 3


def test_a_stopped_study_killed_anywhere_ends_at_the_same_trial(
    tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(trials=60, stop={"no_gain_trials": 6})
    whole = open_study(tmp_path / "whole", config)
    drive(whole)
    for cut in (3, 7, 11):
        folder = tmp_path / str(cut)
        drive(open_study(folder, config), limit=cut)
        again = open_study(folder, config)
        drive(again)
        assert [t.params for t in again.trials()] == [t.params for t in whole.trials()]


def test_a_target_ends_the_search(tmp_path: Path, make_config, open_study, drive) -> None:
    free = open_study(tmp_path / "free", make_config(trials=40))
    drive(free)
    target = max(t.values[0] for t in free.trials())
    study = open_study(tmp_path / "bound", make_config(trials=40, stop={"target": target}))
    drive(study)
    *before, last = [t.values[0] for t in study.trials()]
    assert max(before) < target <= last
    assert len(before) < 39
    assert "is reached" in study.ended


def test_time_adds_up_over_runs(tmp_path: Path, make_config, open_study, evaluation) -> None:
    config = make_config(trials=60, stop={"wall_s": 100})
    spent = []
    for _ in range(3):
        plain, clock = open_study(tmp_path, config), Clock()
        own = (plain._ledger._parameters._space, plain.history.max_ranks)
        study = DrivenStudy.open(Subject(tmp_path, plain.identity, config, *own), clock=clock)
        for _ in range(4):
            job = study.next_job()
            if job is None or job.part != "validation":
                break
            clock.now += 10
            study.finish(job, evaluation(study, job))
        spent.append(study.spent)
        clock.now += 1e6  # between runs nothing passes
    assert spent == [3, 7, 9]
    assert "wall_s is 100" in study.ended


def test_the_winner_is_chosen_where_no_trial_looked(
    tmp_path: Path, make_config, open_study, drive_parts
) -> None:
    config = make_config(trials=20, confirm={"finalists": 4})
    study = open_study(tmp_path / "first", config)
    jobs = drive_parts(study)
    order = [job.part for job in jobs]
    assert order == sorted(order, key=["validation", "confirm", "test"].index)
    finalists = choose_finalists(study.trials(), study.baseline, 4, study.objective)
    asked = [job.name for job in jobs if job.part == "confirm"]
    assert asked == [CONFIRM_BASELINE, *(confirm_name(t.number) for t in finalists)]
    ahead = {job.name: job.ahead for job in jobs if job.ahead}
    assert ahead == {CONFIRM_BASELINE: tuple(t.composition for t in finalists)}
    assert study.winner() is None, "none beat the unedited model there"
    assert [job.name for job in jobs if job.part == "test"] == [TEST_BASELINE]

    third = finalists[2].effect
    study = open_study(tmp_path / "second", config)
    drive_parts(study, {third: 0.6}, limit=23)  # killed within the confirmation
    study = open_study(tmp_path / "second", config)
    jobs = drive_parts(study, {third: 0.6})
    assert study.chosen().winner.number == finalists[2].number
    ahead = {job.name: job.ahead for job in jobs if job.ahead}
    assert ahead == {TEST_BASELINE: (finalists[2].composition,)}, "for its pass to keep a boundary"
    assert study.chosen().finalists == 4
    assert [job.name for job in jobs if job.part == "test"] == [
        TEST_BASELINE,
        names.test_name(finalists[2].number),
    ]


def test_no_finalist_no_confirmation(tmp_path: Path, make_config, open_study, evaluation) -> None:
    study = open_study(tmp_path, make_config(trials=5, confirm={}))
    parts = []
    while (job := study.next_job()) is not None:
        parts.append(job.part)
        found = evaluation(study, job)
        study.finish(job, replace(found, score=0.0 if job.effect else 1.0))
    assert parts == ["validation"] * 6 + ["test"]
    assert study.chosen().finalists == 0


SHAPES = {MatrixRef(layer, kind): (64, 128) for layer in range(4) for kind in ("fc_in", "fc_out")}


def test_a_front_of_score_and_size(tmp_path: Path, make_config, open_study, drive) -> None:
    config = make_config(trials=40, pareto=True)
    plain = open_study(tmp_path / "one", make_config(trials=1))
    own = (plain._ledger._parameters._space, plain.history.max_ranks)
    subject = Subject(tmp_path, plain.identity, config, *own, shapes=SHAPES)
    study = DrivenStudy.open(subject)
    drive(study)
    trials = study.trials()
    assert all(len(t.values) == 2 for t in trials)
    assert all(t.values[1] == 1 - t.kept for t in trials)
    front = pareto_front(trials)
    for trial in trials:
        dominated = any(
            all(a >= b for a, b in zip(x.values, trial.values, strict=True)) for x in front
        )
        assert dominated, "everything is on the front or behind it"
    assert len(front) > 1, "expected a front of several trials, else nothing is compared"
    for a, b in permutations(front, 2):
        assert b.values[0] < a.values[0] or b.values[1] < a.values[1]
    assert [t.values[0] for t in front] == sorted((t.values[0] for t in front), reverse=True)
    assert study.winner().number == max(trials, key=lambda trial: trial.merit).number


def test_what_a_composition_keeps() -> None:
    ranks = dict.fromkeys(SHAPES, 64)
    total = 8 * 64 * 128
    for text, saved in (
        ("0.fc_in=0", 64 * 128),
        ("0.fc_in=rank:10", 64 * 128 - 10 * (64 + 128)),
        ("0.fc_in=0.9", 0),  # two factors would be larger
        ("0.fc_in=prune/0.25", 64 * 128 * 0.75),
        ("0.fc_in=rank:10 1.fc_out=zero", 2 * 64 * 128 - 10 * (64 + 128)),
    ):
        kept = kept_share(Composition.parse(text.split()), SHAPES, ranks)
        assert kept == pytest.approx(1 - saved / total)
    assert kept_share(Composition(), SHAPES, ranks) == 1


def test_a_front_needs_whole_trials(make_config) -> None:
    with pytest.raises(InputError, match="set chunks 4 to 1"):
        make_config(pareto=True, chunks=4)


@pytest.mark.parametrize("workers", [2, 5])
def test_several_workers_come_to_an_end(
    tmp_path: Path, make_config, open_study, evaluation, workers: int
) -> None:
    search = {"stop": {"no_gain_trials": 6}, "confirm": {"finalists": 3}}
    study = open_study(tmp_path, make_config(trials=60, **search))
    flying, parts = [], []
    for _ in range(1000):
        while len(flying) < workers and (job := study.next_job()) is not None:
            flying.append(job)
        if not flying:
            break
        job = flying.pop(0)
        parts.append(job.part)
        study.finish(job, evaluation(study, job))
    assert parts == sorted(parts, key=["validation", "confirm", "test"].index)
    assert parts.count("confirm") == 4
    assert study.chosen().finalists == 3
    assert study.ended
