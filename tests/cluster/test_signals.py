"""Signals, lost Rays and requests to stop: a driver ends in time, with a sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cluster import preemption as module
from cluster.driver import interruption
from cluster.preemption import Preemption
from cluster.ray_watch import RayWatch
from cluster.stop import FILE, StopRequest, stop
from search.durable import write_json
from search.interruption import Interrupted
from search.study.identity import Digests, Identity
from search.study.lock import driver_lock

pytestmark = pytest.mark.usefixtures("signals_heard")


def until(holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def exits(monkeypatch) -> list[tuple[int, str]]:
    """What would have ended the process."""
    found: list[tuple[int, str]] = []
    for place in (module, module.Interruption.__module__):
        name = place if isinstance(place, str) else place.__name__
        monkeypatch.setattr(f"{name}.say_and_exit", lambda code, text: found.append((code, text)))
    return found


def test_nothing_is_raised_in_code_of_ray_but_at_a_safe_point() -> None:
    with Preemption() as preemption:
        preemption.check()
        signal.raise_signal(signal.SIGTERM)
        until(lambda: preemption.asked is not None)
        with pytest.raises(Interrupted) as found:
            preemption.check()
    assert found.value.number == signal.SIGTERM


def test_without_a_safe_point_the_process_ends(exits, monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    told: list[str] = []
    with Preemption(ending=lambda number: (75, "go on"), tidy=told.append):
        signal.raise_signal(signal.SIGHUP)
        until(lambda: exits)
    assert exits == [(75, "go on")]
    assert told == ["it was asked to stop"]


@pytest.mark.parametrize(("number", "grace_s"), [(signal.SIGTERM, 0.3), (signal.SIGINT, 60)])
def test_the_search_drains_and_is_cut(number: signal.Signals, grace_s: float) -> None:
    study = SimpleNamespace(draining=False)
    with Preemption(grace_s) as preemption:
        preemption.search(study)
        assert not preemption.is_cut
        signal.raise_signal(number)
        until(lambda: study.draining)
        until(lambda: preemption.is_cut)


def test_a_signal_just_before_the_search_begins_is_not_forgotten() -> None:
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        until(lambda: preemption.asked is not None)
        with pytest.raises(Interrupted):
            preemption.search(SimpleNamespace(draining=False))


def test_the_loss_of_a_process_of_ray_is_a_sentence(tmp_path: Path) -> None:
    server = tmp_path / "gcs_server"
    server.symlink_to("/bin/sleep")
    with subprocess.Popen([server, "1000"]) as process:
        lost: list[str] = []
        with RayWatch(lost.append, [psutil.Process(process.pid)]):
            time.sleep(1)
            assert not lost
            process.kill()
            until(lambda: lost)
    assert lost == ["a part of Ray on this machine ended (gcs_server)"]


def test_the_loss_of_a_cluster_is_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr("cluster.ray_watch.LOST_S", 0.5)
    monkeypatch.setattr("cluster.ray_watch.PROBE_S", 0.1)
    lost: list[str] = []
    with RayWatch(lost.append, server=("127.0.0.1", 1)):
        until(lambda: lost)
    assert "the Ray at 127.0.0.1:1 has not answered" in lost[0]


def test_a_lost_ray_ends_the_process_with_1(exits, tmp_path: Path) -> None:
    Preemption(ending=lambda number: interruption(tmp_path, number)).lost("Ray is gone")
    assert exits == [(1, "stopped: Ray is gone\nonce it is fixed, continue with: the same command")]


def test_a_request_to_stop_is_kept_while_the_driver_starts(tmp_path: Path) -> None:
    Identity.new(Digests("", "", "", "")).write(tmp_path)
    with driver_lock(tmp_path) as lease:
        said: list[str] = []
        asking = threading.Thread(target=lambda: said.append(stop(tmp_path, 0)))
        asking.start()
        asking.join()
        assert "asked the driver to stop" in said[0]
        with Preemption() as preemption, StopRequest(tmp_path, lease.token):
            until(lambda: preemption.asked == signal.SIGTERM)
    assert interruption(tmp_path, signal.SIGTERM)[0] == 0
    assert not (tmp_path / FILE).exists()


def test_a_request_to_an_earlier_driver_is_void(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("cluster.stop.POLL_S", 0.05)
    write_json(tmp_path / FILE, {"asked": 0, "driver": "an earlier one"})
    with driver_lock(tmp_path) as lease, Preemption() as preemption:
        with StopRequest(tmp_path, lease.token):
            time.sleep(0.3)
        assert preemption.asked is None
    assert interruption(tmp_path, signal.SIGTERM)[0] == 75


@pytest.mark.long
def test_signals_from_start_to_verdict() -> None:
    """Each signal, to the driver and to its group, at a moment of its own."""
    script = Path(__file__).parents[2] / "benchmarks" / "signals.py"
    if not script.exists():
        pytest.skip("benchmarks are not shipped with the wheel")
    words = [sys.executable, script, "--moments", "6", "--single", "--trials", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


ALARMED = """
import signal, time
from cluster import cli
cli.app = lambda: (signal.alarm(1), time.sleep(2), print("alive"))
cli.main(alone=True)
"""


def test_the_alarm_that_ray_sets_on_a_signal_ends_no_program() -> None:
    """Its handler aborts 3 s after SIGTERM, before a busy machine lets us end by ourselves."""
    words = [sys.executable, "-c", ALARMED]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
