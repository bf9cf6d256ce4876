"""Nodes that go: a cluster of several raylets on this machine, of which one is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from search.study.study_record import StudyRecord

pytestmark = pytest.mark.long
TRIALS = 40


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # all servers on loopback
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield found
    found.shutdown()


def workers(study: Path) -> dict[int, list[str]]:
    """What each worker's log says it finished, by process."""
    return {
        int(path.stem.rsplit("-", 1)[1]): [
            event["job"]
            for event in map(json.loads, path.read_text().splitlines())
            if event["event"] == "done"
        ]
        for path in study.glob("logs/worker-*.jsonl")
    }


def test_a_node_that_dies_costs_no_trial(cluster, start, make_study, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    study = tmp_path / "study"
    path = make_study(tmp_path, workers=2, trials=TRIALS)
    driver = start("launch", path, "--out", study, "--address", cluster.address, "--quiet")
    deadline = time.monotonic() + 400
    held: set[int] = (
        set()
    )  # who is first with a trial waits, or it does them all while the other loads
    while len(held) < 2:
        assert time.monotonic() < deadline and driver.poll() is None
        tried = {pid for pid, jobs in workers(study).items() if "trial" in " ".join(jobs)}
        for pid in tried - held:
            os.kill(pid, signal.SIGSTOP)
            held.add(pid)
        time.sleep(0.05)
    for pid in held:
        os.kill(pid, signal.SIGCONT)
    cluster.remove_node(node, allow_graceful=False)
    assert driver.wait(timeout=400) == 0
    record = StudyRecord.read(study)
    assert (record.summary.finished, record.summary.running) == (TRIALS, 0)
    assert record.summary.failed == 0
    effects = [t.effect for t in record.trials]
    assert len(set(effects)) == len(effects) == TRIALS
    done = [job for jobs in workers(study).values() for job in jobs]
    assert len(set(done)) == len(done), "evaluated twice"
    for pid in workers(study):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
