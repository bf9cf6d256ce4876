"""Signals end a command with a sentence, whatever its main thread is in."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

pytestmark = pytest.mark.usefixtures("signals_heard")
PROGRAM = """
import sys, time
from search import interruption
from search.interruption import Interruption, interrupted_by, say_and_exit, ending_of_command
interruption.PATIENCE_S = 0.5
class Wrapped(Exception): pass
try:
    with Interruption() as own:
        print("ready", flush=True)
        {body}
except BaseException as error:
    found = interrupted_by(error)
    say_and_exit(*ending_of_command(found.number, found.note))
"""
SLEEPS = "time.sleep(1000)"
SWALLOWS = """
        while True:
            try: time.sleep(1000)
            except BaseException: pass
"""
WRAPS = """
        try: time.sleep(1000)
        except BaseException as error: raise SystemError("returned a result") from error
"""
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("body", [SLEEPS, SWALLOWS, WRAPS, IN_C])
def test_one_sentence_and_the_conventional_code(body: str, number: signal.Signals) -> None:
    words = [sys.executable, "-c", PROGRAM.format(body=body)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None and done.stdout.readline() == "ready\n"
        done.send_signal(number)
        try:
            said = done.communicate(timeout=300)[1]
        finally:
            done.kill()
    assert done.returncode == 128 + number, said
    assert said.startswith("interrupted") and said.count("\n") == 1


def test_a_second_interrupt_a_second_later_ends_at_once() -> None:
    """The first waits for a safe point that does not come."""
    hasty = PROGRAM.replace("PATIENCE_S = 0.5", "PATIENCE_S, interruption.AGAIN_S = 1000, 0.2")
    ready = 'print("ready", flush=True)'
    assert hasty.count(ready) == 1
    body = SWALLOWS.replace("try: ", f"try: {ready}; ")  # what comes before would not be swallowed
    words = [sys.executable, "-c", hasty.replace(ready, "pass").format(body=body)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None and done.stdout.readline() == "ready\n"
        try:
            done.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                done.wait(1)
            for _ in range(300):  # a busy machine may have heard the first just now
                done.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    done.wait(1)
                    break
            said = done.communicate(timeout=1)[1]
        finally:
            done.kill()
    assert done.returncode == 130, said
    assert said == "interrupted; the same command does it again\n"


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    body = "signal.raise_signal(signal.SIGHUP); say_and_exit(7, 'goes on')"
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    words = [sys.executable, "-c", program + PROGRAM.format(body=body)]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_after_the_last_context_a_signal_changes_nothing(number: signal.Signals) -> None:
    """All is done and said, and Python needs a moment to end."""
    program = (
        "import signal, sys\n"
        "from search.interruption import Interruption\n"
        "with Interruption(last=True): pass\n"
        f"signal.raise_signal({int(number)})\n"
        "sys.exit(7)\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
