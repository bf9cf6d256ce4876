"""A Ray of our own leaves no process behind, whatever its workers do."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import ray

from cluster.session import ray_session
from search.config import ClusterConfig


@ray.remote(num_cpus=0)
class Worker:
    def pids(self) -> tuple[int, int]:
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return os.getpid(), child.pid


def test_a_worker_that_hangs_at_the_end_is_killed_with_what_it_started() -> None:
    with ray_session(ClusterConfig()):
        worker = Worker.remote()
        processes = [psutil.Process(pid) for pid in ray.get(worker.pids.remote())]
        processes[0].send_signal(signal.SIGSTOP)
        assert all(process.is_running() for process in processes)
    _, left = psutil.wait_procs(processes, timeout=5)
    assert not left
