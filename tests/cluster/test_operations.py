"""A running study watched and ended from outside: status, logs, stop."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from search.report.live import find_workers
from search.report.logs import WorkerLogs, print_logs, sentence
from search.study.identity import Digests, Identity
from search.study.study_record import StudyRecord
from tasks.errors import InputError


def ask(*words: object) -> str:
    """In this process, which is quicker than a new one."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_study_is_watched_and_stopped_from_outside(
    start, make_study, ray_address: str, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    path = make_study(tmp_path, trials=400)
    driver = start(
        *("launch", path, "--out", study, "--quiet", "--address", ray_address),
        until=lambda: len(list(study.glob("outcomes/trial-*.parquet"))) >= 4,
    )
    try:
        found = json.loads(ask("status", study, "--json"))
        assert found["driver"]["pid"] == driver.pid
        assert found["rate_per_s"] > 0 and found["ends"].endswith("UTC")
        busy = [worker["busy"] for worker in found["workers"] if worker["busy"] is not None]
        assert busy, "four trials have ended, so of some worker it is known how busy it was"
        assert all(0 < share <= 1 for share in busy), f"{busy} must be shares of the time"
        assert "evaluating" in ask("status", study)
        assert "stopped; continue with" in ask("stop", study)
        assert driver.wait(timeout=500) == 0, "stopped as asked is no failure"
    finally:
        driver.kill()
    lines = [json.loads(line) for line in ask("logs", study, "--json").splitlines()]
    assert {line["event"] for line in lines} >= {"setup", "start", "done"}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    summary = StudyRecord.read(study).summary
    assert 4 <= summary.finished < 400
    said = ask("status", study)
    assert "driver: none" in said and "continue with laser-search resume" in said
    assert "is not running" in ask("stop", study)
    assert not (study / "stop.request").exists()


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A study's folder in which two workers wrote; the last line of one is torn."""
    Identity.new(Digests("", "", "", "")).write(tmp_path)
    (tmp_path / "logs").mkdir()
    now = time.time() - 100
    for host, events in (
        ("a-1", [("setup", 0), ("start", 10), ("done", 20), ("start", 20), ("done", 30)]),
        ("b-2", [("setup", 1), ("start", 11), ("failed", 16), ("start", 21), ("done", 31)]),
    ):
        lines = [
            json.dumps({"time": now + at, "event": event, "job": "t", "gpu_gib": 3.5})
            for event, at in events
        ]
        (tmp_path / "logs" / f"worker-{host}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_how_busy_workers_are(logged: Path) -> None:
    busy = {worker.name: worker.busy for worker in find_workers(logged)}
    assert busy == {"a-1": pytest.approx(1.0), "b-2": pytest.approx(0.75)}
    assert {worker.gpu_gib for worker in find_workers(logged)} == {3.5}


def test_logs_are_merged_followed_and_chosen(logged: Path) -> None:
    shown: list[str] = []
    path = logged / "logs" / "worker-a-1.jsonl"

    def sleep(_: float) -> None:
        if len(shown) > 3:
            raise KeyboardInterrupt
        with path.open("a") as stream:
            stream.write(json.dumps({"time": time.time(), "event": "start", "job": "new"}) + "\n")

    print_logs(
        WorkerLogs(logged, "a"), shown.append, last=2, follow=True, as_json=False, sleep=sleep
    )
    assert [text.split()[3] for text in shown] == ["start", "done", "start", "start"]
    assert all("a-1" in text for text in shown)
    with pytest.raises(InputError, match="worker 'c' has no log in"):
        WorkerLogs(logged, "c").check()


def test_a_torn_line_waits_for_its_end(logged: Path) -> None:
    logs = WorkerLogs(logged)
    assert len(logs.new()) == 10
    path = logged / "logs" / "worker-a-1.jsonl"
    whole = json.dumps({"time": 1.0, "event": "done", "job": "x"})
    with path.open("a") as stream:
        stream.write(whole[:9])
    assert logs.new() == []
    with path.open("a") as stream:
        stream.write(whole[9:] + "\n")
    (line,) = logs.new()
    assert sentence(line) == "1970-01-01 00:00:01 a-1 done job=x"
