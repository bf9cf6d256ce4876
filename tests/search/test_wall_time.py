"""The wall time of a study, apart by what it was spent on, over all its runs."""

import pytest

from search.config import write_config
from search.report.cost import wall_text
from search.report.standing import standing
from search.study.identity import Identity
from search.study.study_record import CONFIG, StudyRecord
from search.study.wall_time import PHASES, WallTime


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def driven(open_study, evaluation, clock):
    """A study whose every job takes ten seconds; `jobs` of them, or all."""

    def drive(folder, config, jobs=None, started_s=3.0, factors_s=5.0):
        wall = WallTime(clock)
        clock.sleep(started_s)
        wall.enter("factors")
        clock.sleep(factors_s)
        wall.enter("start")
        study = open_study(folder, config, wall=wall)
        while jobs != 0 and (job := study.next_job()) is not None:
            clock.sleep(10)
            study.finish(job, evaluation(study, job))
            jobs = None if jobs is None else jobs - 1
        return study

    return drive


def _known(folder, config):
    """What the folder says, to whoever reads it."""
    Identity("study-under-test", "2026-01-01", {}, "w", "c", "e", "s").write(folder)
    write_config(config, folder / CONFIG)
    return StudyRecord.read(folder).summary.wall_s


def test_phases_add_up(clock):
    wall = WallTime(clock)
    for phase, seconds in (("start", 1), ("factors", 2), ("trials", 4), ("factors", 8)):
        wall.enter(phase)
        clock.sleep(seconds)
    assert wall.seconds() == {"start": 1, "factors": 10, "trials": 4}
    wall.add({"start": 0.5, "test": 7})
    assert wall.seconds() == {"start": 1.5, "factors": 10, "trials": 4, "test": 7}
    assert list(wall.seconds()) == [phase for phase in PHASES if phase in wall.seconds()]


def test_a_study_records_where_its_wall_time_went(driven, make_config, tmp_path):
    config = make_config(trials=3)
    driven(tmp_path / "s", config)
    assert _known(tmp_path / "s", config) == {
        "start": 3.0,
        "factors": 5.0,
        "trials": 40.0,  # the baseline and three trials
        "test": 20.0,
    }


def test_runs_add_up_and_a_kill_loses_at_most_the_job_in_flight(
    driven, make_config, tmp_path, clock
):
    config = make_config(trials=3)
    killed = driven(tmp_path / "s", config, jobs=2)
    assert killed.next_job() is not None
    clock.sleep(1000)  # in flight when it is killed, and the time until somebody looks
    assert _known(tmp_path / "s", config) == {"start": 3.0, "factors": 5.0, "trials": 20.0}
    driven(tmp_path / "s", config, started_s=1.0, factors_s=2.0)
    assert _known(tmp_path / "s", config) == {
        "start": 4.0,
        "factors": 7.0,
        "trials": 40.0,
        "test": 20.0,
    }


def test_jobs_that_fail_or_are_pruned_are_paid_for_too(driven, make_config, tmp_path, clock):
    config = make_config(trials=3)
    study = driven(tmp_path / "s", config, jobs=1)
    for end in (lambda job: study.fail(job, "x"), study.prune):
        job = study.next_job()
        clock.sleep(7)
        end(job)
    assert _known(tmp_path / "s", config)["trials"] == 24.0


def test_the_screen_is_apart(driven, make_config, tmp_path, clock):
    config = make_config(trials=3, strategy="screened")
    study = driven(tmp_path / "s", config, jobs=1)
    job = study.next_job()
    assert job.part == "screen"
    clock.sleep(6)
    study.fail(job, "no gradient")
    assert _known(tmp_path / "s", config)["screen"] == 6.0


def test_a_study_of_an_earlier_version_says_nothing(open_study, make_config, tmp_path):
    config = make_config(trials=3)
    open_study(tmp_path / "s", config)
    assert _known(tmp_path / "s", config) == {}
    assert wall_text({}) == ""
    summary = StudyRecord.read(tmp_path / "s").summary
    lines = standing(tmp_path / "s", summary)
    assert lines, "it was to say where the study stands"
    assert not any("wall" in line for line in lines)


def test_status_says_it(driven, make_config, tmp_path):
    driven(tmp_path / "s", make_config(trials=3), jobs=2)
    _known(tmp_path / "s", make_config(trials=3))
    summary = StudyRecord.read(tmp_path / "s").summary
    assert "wall time: 28 s (start 3 s, factors 5 s, trials 20 s)" in standing(
        tmp_path / "s", summary
    )


def test_the_words():
    found = wall_text({"start": 12.0, "factors": 100, "screen": 0, "trials": 5600, "test": 30.4})
    assert found == (
        "wall time: 1.6 h (start 12 s, factors 2 min, screen 0 s, trials 1.6 h, test 30 s)"
    )
    assert wall_text({"start": 0.4, "trials": 3}) == "wall time: 3 s (start 0 s, trials 3 s)"
