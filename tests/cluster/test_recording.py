"""What is flushed to the disk when a trial ends, and what may wait for the next one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.tune_search import StudySearch
from search.demo.study import demo_config
from search.plan import make_plan
from search.study.driven_study import DrivenStudy, Subject
from search.study.identity import Digests, Identity
from search.study.jobs import Job
from search.study.journal import JOURNAL
from search.study.outcomes import Evaluation, outcome_bytes
from tasks.base import Outcome

TRIALS = 3


def opened(folder: Path) -> DrivenStudy:
    config = demo_config(folder, TRIALS)
    data = config.model_dump(mode="json")
    data["search"] |= {"strategy": "random", "pruner": "none"}
    plan = make_plan(type(config).model_validate(data))
    identity = Identity("a-study", "2026-01-01", Digests("", "", "", ""), "w", "c", "e", "s")
    return DrivenStudy.open(
        Subject(folder, identity, plan.config, plan.space, plan.max_ranks, plan.objective)
    )


def searching(study: DrivenStudy) -> StudySearch:
    return StudySearch(study, SimpleNamespace(overdue=lambda _: ""), lambda: 1)


def finished(study: DrivenStudy, job: Job) -> dict[str, Any]:
    """What a worker says of a job."""
    outcomes = tuple(Outcome(f"q{n}", f"g{n}", n % 2, -1.0, "x") for n in range(4))
    evaluation = Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        0.5, 1.0, {"total": 0.0}, outcomes,
    )  # fmt: skip
    return {"score": 0.5, "finished": True, "outcomes": outcome_bytes(evaluation)}


def size(folder: Path) -> int:
    return (folder / JOURNAL).stat().st_size


def test_the_end_of_a_trial_is_flushed_with_the_next_one_and_at_the_last_at_once(
    tmp_path: Path,
) -> None:
    study = opened(tmp_path)
    search = searching(study)
    flushed = []
    for number in range(TRIALS + 1):  # the baseline, then trials
        assert isinstance(search.suggest(f"t{number}"), dict)
        job, before = search.jobs[f"t{number}"], size(tmp_path)
        search.on_trial_complete(f"t{number}", finished(study, job))
        flushed.append(size(tmp_path) > before)
    assert flushed == [False, False, False, True]
    assert study.spent == TRIALS
    assert [t.state.name for t in opened(tmp_path).trials()] == ["COMPLETE"] * TRIALS


def test_a_kill_before_the_flush_loses_nothing_that_was_computed(tmp_path: Path) -> None:
    study = opened(tmp_path)
    search = searching(study)
    for number in range(2):
        search.suggest(f"t{number}")
        search.on_trial_complete(f"t{number}", finished(study, search.jobs[f"t{number}"]))
    (whole,) = study.trials()
    again = opened(tmp_path)  # another driver, which has only what is on the disk
    assert [trial.state.name for trial in again.trials()] == ["RUNNING"]
    job = again.next_job()
    assert job is not None
    assert job.number == 1, "the first is told from its outcome file, and does not run again"
    told = again.trials()[0]
    assert (told.state, told.score, told.composition) == (
        whole.state, whole.score, whole.composition
    )  # fmt: skip
    assert (told.log_loss, told.soft_score) == (whole.log_loss, whole.soft_score)


@pytest.mark.parametrize("result", [None, {"score": 0.0, "error": "no"}, {"score": 0.1}])
def test_what_no_outcome_file_tells_is_flushed_at_once(tmp_path: Path, result) -> None:
    study = opened(tmp_path)
    search = searching(study)
    search.suggest("t0")
    search.on_trial_complete("t0", finished(study, search.jobs["t0"]))
    search.suggest("t1")
    before = size(tmp_path)
    search.on_trial_complete("t1", result, error=result is None)
    assert size(tmp_path) > before
