"""A session with Ray: how it comes up, and that a Ray of our own leaves no process behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from cluster.session import _start, ray_session
from search.sections import ClusterConfig
from tasks.errors import InputError

HANGING = """
import os, signal, subprocess
import psutil, ray
from cluster.session import _start, ray_session
from search.sections import ClusterConfig

@ray.remote(num_cpus=0)
class Worker:
    def pids(self):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return os.getpid(), child.pid

with ray_session(ClusterConfig()):
    worker = Worker.remote()
    processes = [psutil.Process(pid) for pid in ray.get(worker.pids.remote())]
    processes[0].send_signal(signal.SIGSTOP)
    assert all(process.is_running() for process in processes)
_, left = psutil.wait_procs(processes, timeout=60)
print("left:", left)
"""


def test_a_worker_that_hangs_at_the_end_is_killed_with_what_it_started() -> None:
    words = [sys.executable, "-c", HANGING]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "left: []\n", f"no process may stay: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("failures", [1, 2])
def test_a_server_that_loses_its_client_is_asked_once_more(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= failures:
            raise ConnectionAbortedError("Initialization failure from server:")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # this process may be connected to another
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = ClusterConfig(address=f"127.0.0.1:{server.getsockname()[1]}")
        if failures == 1:
            with ray_session(config):
                assert asked == [config.address] * 2
        else:
            with pytest.raises(InputError, match="Initialization failure"), ray_session(config):
                pass
            assert len(asked) == 2, "asked once more, and not again and again"


@pytest.mark.parametrize(
    ("fault", "busy"),
    [
        (TimeoutError("Timed out after 30 seconds while waiting for node to startup."), True),
        (RuntimeError("The current node timed out during startup."), True),
        (PermissionError(13, "Permission denied"), False),
        (ValueError("no such thing"), False),
    ],
)
def test_a_ray_that_does_not_start_is_a_sentence_with_the_remedy(
    fault: Exception, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match="Ray does not start on this machine") as found:
        _start()
    assert ("less busy" in str(found.value)) == busy
    assert "session_latest/logs" in str(found.value)


def test_a_temporary_folder_that_goes_while_ray_starts_is_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever Ray says of it: another time on a less busy machine would fail as well."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # sockets have short names
    monkeypatch.setenv("RAY_TMPDIR", str(folder))

    def init(*_: object, **__: object) -> None:
        folder.rmdir()
        raise TimeoutError("Timed out after 30 seconds while waiting for node to startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=f"{folder} cannot be written .*set RAY_TMPDIR"):
        _start()
