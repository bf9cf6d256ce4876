"""Which phase runs, for how long, and how much longer: with a clock of the test's own."""

import io
import json
import sys
import time

import pytest
from rich.console import Console
from rich.text import Text

from search.phases import SILENT, PhaseReporter, duration, relay, reporting, retell
from search.verbosity import Verbosity, speaking


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def _reporter(clock, *, terminal=False):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, markup=False)
    return PhaseReporter(console, clock=clock, pulse=False), console.file


def test_a_phase_is_said_in_its_first_second_and_again_every_ten(clock):
    reporter, out = _reporter(clock)
    with reporter:
        reporter.enter("starting Ray")
        for half in range(1, 61):
            clock.now = half / 2
            reporter.tick()
            assert out.getvalue().startswith("starting Ray\n")
    assert out.getvalue().splitlines() == [
        "starting Ray",
        "starting Ray, 10 s",
        "starting Ray, 20 s",
        "starting Ray, 30 s",
    ]


def test_a_command_that_ends_at_once_says_no_phase(clock):
    reporter, out = _reporter(clock)
    with reporter:
        for name in ("loading the program", "reading the checkpoint"):
            reporter.enter(name)
            clock.now += 0.4
            reporter.tick()
    assert out.getvalue() == ""


def test_what_is_counted_says_how_much_is_left(clock):
    reporter, out = _reporter(clock)
    with reporter:
        reporter.enter("factors", 12)
        clock.now = 0.5
        reporter.tick()
        clock.now = 9.0
        reporter.advance(3)
        reporter.tick()
        assert out.getvalue() == "factors 0/12\n", "no line before ten seconds are over"
        clock.now = 10.0
        reporter.tick()
    # A quarter took 9 s, so 27 s were left one second ago.
    assert out.getvalue().splitlines()[-1] == "factors 3/12, 10 s, about 26 s left"


def test_who_knows_better_says_what_is_left(clock):
    reporter, _ = _reporter(clock)
    reporter.enter("trials", 40)
    clock.now = 5.0
    reporter.advance(10, left_s=100.0, detail="best 0.5")
    clock.now = 25.0
    assert reporter.line() == "trials 10/40, 25 s, about 80 s left, best 0.5"


def test_nothing_is_left_is_never_said(clock):
    """The estimate has run out, or all is done and the phase goes on."""
    reporter, _ = _reporter(clock)
    reporter.enter("trials", 4)
    clock.now = 4.0
    reporter.advance(2)
    clock.now = 9.0
    assert "left" not in reporter.line()
    reporter.advance(4)
    assert reporter.line() == "trials 4/4, 9 s"


def test_a_phase_that_is_entered_again_goes_on(clock):
    reporter, _ = _reporter(clock)
    reporter.enter("trials", 4)
    clock.now = 7.0
    reporter.enter("trials", 4)
    assert reporter.line() == "trials 0/4, 7 s"
    reporter.enter("test")
    assert reporter.line() == "test"


def test_notes_stand_among_the_phases(clock):
    reporter, out = _reporter(clock)
    reporter.enter("reading the checkpoint")
    clock.now = 0.5
    reporter.tick()
    reporter.note("note: [few] questions")
    reporter.enter("starting Ray")
    clock.now = 1.0
    reporter.tick()
    assert out.getvalue().splitlines() == [
        "reading the checkpoint",
        "note: [few] questions",
        "starting Ray",
    ]


def test_a_terminal_shows_one_live_line_and_leaves_only_the_notes(clock):
    reporter, out = _reporter(clock, terminal=True)
    with reporter:
        reporter.enter("factors", 3)
        clock.now = 2.0
        reporter.advance(1)
        reporter.below = Text("a table")
        reporter.tick()
        shown = out.getvalue()
        assert "factors 1/3, 2 s, about 4 s left" in shown and "a table" in shown
        reporter.note("kept")
    assert "\x1b[?25h" in out.getvalue(), "the cursor is back"


def test_time_goes_on_by_itself():
    """While the main thread computes, a thread of the reporter's own speaks."""
    out = io.StringIO()
    with PhaseReporter(Console(file=out), first_s=0.01, every_s=0.02) as reporter:
        reporter.enter("thinking")
        deadline = time.monotonic() + 20
        while out.getvalue().count("thinking") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert out.getvalue().count("thinking") >= 3
    said = out.getvalue()
    time.sleep(0.1)
    assert out.getvalue() == said, "and no longer than the command"


def test_progress_goes_to_standard_error_and_quiet_is_silent(capsys):
    with reporting() as phases:
        phases.note("said")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "said\n")
    with speaking(Verbosity.QUIET), reporting() as phases:
        phases.enter("loading")
        phases.note("note")
    assert capsys.readouterr() == ("", "")


def test_what_a_child_process_says_is_told_by_its_parent(clock):
    lines = io.StringIO()
    child = relay(lines)
    child.enter("asking the export", 8)
    child.advance(2)
    lines.write("not ours\n" + json.dumps(["enter"]) + "\n")
    reporter, _ = _reporter(clock)
    for line in lines.getvalue().splitlines():
        retell(line, reporter)
    clock.now = 1.0
    assert reporter.line() == "asking the export 2/8, 1 s"


def test_the_silent_one_takes_everything():
    SILENT.enter("x", 3)
    SILENT.advance(1, left_s=2.0, detail="y")
    SILENT.note("z")


def test_seconds_are_said_as_people_say_them():
    assert [duration(s) for s in (0.4, 89, 90, 5400)] == ["0 s", "89 s", "2 min", "1.5 h"]


def test_it_loads_without_torch():
    import subprocess

    code = "import sys, search.phases; assert not {'torch', 'ray', 'optuna'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
