"""Which phase of a study the view names, from its jobs in flight; with a clock of its own."""

import io
import json
import time
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.view import StudyView
from search.cuts.composition import Composition
from search.phases import SILENT, PhaseReporter
from search.study.jobs import BASELINE, SCREEN, TEST_BASELINE, Job, trial_name
from search.study.objective import Goal, Objective
from search.study.outcomes import Evaluation
from search.study.summary import summarise


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def _job(name, part="validation", number=None):
    return Job(name, Composition(), "", part, number)


BASE = _job(BASELINE)
TRIAL = _job(trial_name(0), number=0)
TESTS = [_job(TEST_BASELINE, "test"), _job("trial-00000-test", "test")]


def _summary(finished=0, left_s=None):
    baseline = Evaluation(BASELINE, "s", "", "", "validation", 0.5, 1.0, {"total": 8.0}, ())
    found = summarise([], baseline, 40, Objective((Goal("", "accuracy"),)))
    return replace(found, complete=finished, rate_per_s=(40 - finished) / left_s if left_s else 0.0)


def _view(clock, folder=None, *, terminal=False):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    phases = PhaseReporter(console, clock=clock, pulse=False)
    return StudyView(phases, folder, clock), phases


def _look(view, clock, jobs, summary=None):
    clock.now += 1.0
    view.look(jobs, lambda: summary or _summary())


def test_until_a_worker_has_begun_the_model_loads(clock, tmp_path):
    view, phases = _view(clock, tmp_path)
    _look(view, clock, [BASE])
    assert phases.line() == "loading the model"
    log = tmp_path / "logs" / "worker-a-1.jsonl"
    log.parent.mkdir()
    log.write_text(json.dumps({"time": time.time(), "event": "setup"}) + "\n")
    _look(view, clock, [BASE])
    assert phases.line() == "loading the model, 1 s"
    with log.open("a") as stream:
        stream.write(json.dumps({"time": time.time(), "event": "start", "job": BASELINE}) + "\n")
    _look(view, clock, [BASE])
    assert phases.line() == "baseline"


def test_where_no_log_is_seen_the_first_job_that_ends_shows_that_it_is_loaded(clock):
    view, phases = _view(clock)
    _look(view, clock, [BASE])
    view.changed([], _summary)
    _look(view, clock, [_job(SCREEN, "screen")])
    assert phases.line() == "screen"


def test_trials_say_how_many_and_how_long(clock):
    view, phases = _view(clock)
    view.changed([], _summary)
    _look(view, clock, [TRIAL], _summary(10, 60.0))
    assert phases.line() == "trials 10/40, about 60 s left, baseline 0.5000"
    clock.now += 4.0
    assert phases.line().startswith("trials 10/40, 4 s, about 56 s left")
    _look(view, clock, [TRIAL], _summary(20, 30.0))
    assert phases.line().startswith("trials 20/40, 5 s, about 30 s left")


def test_test_is_no_trial_and_says_how_long_it_takes(clock):
    view, phases = _view(clock)
    view.questions = {"validation": 100, "test": 400}
    view.changed([], _summary)
    _look(view, clock, [TRIAL], _summary(39, 2.0))
    won = replace(_summary(40, 60.0), winner=object())
    _look(view, clock, TESTS[:1], won)
    # Validation took 8 s, so test takes 32 s for each of two models, one after the other.
    assert phases.line() == "test 0/2, about 64 s left"
    clock.now += 40.0
    assert phases.line() == "test 0/2, 40 s, about 24 s left"


def test_a_terminal_has_the_table_below_the_line(clock):
    view, phases = _view(clock, terminal=True)
    _look(view, clock, [BASE])
    assert phases.below is None
    clock.now += 1.0
    view.changed([TRIAL], lambda: _summary(3, 20.0))
    phases.console.print(phases.below)
    assert "running" in phases.console.file.getvalue()


def test_general_text_has_a_phase_of_its_own(clock):
    view, phases = _view(clock)
    view.changed([TRIAL], _summary)
    for name in ("baseline-guard-0", "trial-00000-guard-0"):
        _look(view, clock, [_job(name, "guard")])
        assert phases.line().startswith("general text")


def test_a_quiet_view_summarises_nothing(clock):
    def summarise():
        raise AssertionError("a summary reads every trial")

    view = StudyView(SILENT, None, clock)
    for jobs in ([BASE], [TRIAL], TESTS):
        clock.now += 60.0
        view.look(jobs, summarise)
        view.changed(jobs, summarise)
