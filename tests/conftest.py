"""The program as a user runs it, in this process; cheap new ones; rounding; signals."""

import os
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

# Before torch is imported: on tiny tensors, threads that wait for one another cost more than they
# bring. Processes that tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from cluster.cli import main
from search.export import afresh
from search.phases import retell

AS_USERS_HAVE_IT = afresh._listen
EAGER = Path(__file__).with_name("eager")


def pytest_addoption(parser):
    parser.addoption(
        "--threads", type=int, help="torch's threads, instead of the one that is usual"
    )
    parser.addoption("--attention", choices=["eager", "sdpa"], help="instead of a model's default")


def pytest_configure(config):
    if config.getoption("attention") == "eager" and str(EAGER) not in sys.path:
        # Here, and by the environment in the processes that tests start.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(EAGER), *([before] if before else [])])
        runpy.run_path(str(EAGER / "sitecustomize.py"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if threads := item.config.getoption("threads"):
        torch.set_num_threads(threads)
    return (yield)


@pytest.fixture(autouse=True, scope="session")
def no_progress():
    """Commands in this process say no phase, however slow the machine is: tests count lines."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("search.phases.FIRST_S", float("inf"))
        yield


@pytest.fixture(scope="session")
def forked():
    """Fresh processes without the seconds that imports take: see forked.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("forked.py"))))


@pytest.fixture(autouse=True, scope="session")
def checked_in_a_fork(forked):
    """Exports are checked in a fork, unless a test asks for a process as users have it."""

    def listen(command, phases):
        done = forked.run(*command[2:])
        for line in done.stdout.splitlines(keepends=True):
            retell(line, phases)
        return done.returncode, done.stderr

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("search.export.afresh._listen", listen)
        yield


@pytest.fixture
def checked_in_a_new_process(monkeypatch):
    """Exports are checked as users have it."""
    monkeypatch.setattr("search.export.afresh._listen", AS_USERS_HAVE_IT)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `laser-search` with these words: exit code, what it printed, what it complained of."""

    def go(*words):
        monkeypatch.setattr(sys, "argv", ["laser-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return go


@pytest.fixture(scope="session")
def count_blocks():
    """A list that fills with the place of every block of a prefix whose own work runs."""

    def count(prefix):
        ran = []
        for place, block in enumerate(prefix.blocks.modules):
            leaves = (m for m in block.modules() if not list(m.children()))
            first = next(m for m in leaves if list(m.parameters()))
            first.register_forward_hook(lambda *_, place=place: ran.append(place))
        return ran

    return count


@pytest.fixture
def signals_heard():
    """Signals as in a terminal: in the background of a script, or under nohup, some are ignored."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def rounding():
    """How exact float32 has to be, from the case: see exactness.py."""
    path = Path(__file__).with_name("exactness.py")
    return runpy.run_path(str(path))["Rounding"]()
