"""Who asks what when the search is over: a winner where the unedited model's pass left off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.study.driven_study import DrivenStudy


@pytest.fixture
def over(open_study, make_config, drive, tmp_path, monkeypatch) -> DrivenStudy:
    """A study whose trials are all done, with general text to compare on."""
    study = open_study(tmp_path / "s", make_config(trials=3, strategy="random"))
    drive(study, 4)
    confirmation = replace(study._confirmation, general_text="texts")
    monkeypatch.setattr(study, "_confirmation", confirmation)
    return study


def part_of(job) -> tuple[str, str]:
    return ("winner" if job.composition.interventions else "baseline", job.part)


def test_one_worker_asks_the_winner_right_after_the_unedited_model(over, evaluation) -> None:
    asked = []
    while (job := over.next_job()) is not None:
        asked.append(part_of(job))
        over.finish(job, evaluation(over, job))
    assert asked == [
        ("baseline", "test"),
        ("winner", "test"),
        ("baseline", "guard"),
        ("winner", "guard"),
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_two_workers_have_a_part_each(over, evaluation, first: int) -> None:
    jobs = [over.next_job(), over.next_job()]
    assert [part_of(job) for job in jobs] == [("baseline", "test"), ("baseline", "guard")]
    for job in (jobs[first], jobs[1 - first]):
        over.finish(job, evaluation(over, job))
        follows = over.next_job()
        assert part_of(follows) == ("winner", job.part), "the worker has where it begins"
        assert follows.composition in job.ahead
    assert over.next_job() is None


def test_more_workers_wait_for_nothing(over) -> None:
    asked = [part_of(job) for job in iter(over.next_job, None)]
    assert sorted(asked) == sorted(
        (side, part) for side in ("baseline", "winner") for part in ("test", "guard")
    )
