"""Finished trials reach each tracker once, through its own code."""

import json
import math
from itertools import pairwise

import pytest
from tensorboardX.proto.event_pb2 import Event
from typer.testing import CliRunner

from cluster.cli import app
from cluster.track import track


def _finished(record):
    return [t for t in record.trials if t.state.is_finished()]


def _scalars(folder):
    """(tag, step, value) of every event file in a folder: length, checksum, record, checksum."""
    found = []
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.append((value.tag, event.step, value.simple_value))
    return found


def test_tensorboard_has_every_score_and_the_best_so_far(make_study, tmp_path):
    record = make_study(tmp_path / "s")
    run = CliRunner().invoke(app, ["track", str(record.folder), "--to", "tensorboard", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.output)["sent"] == len(_finished(record))
    complete = [t for t in _finished(record) if t.state.name == "COMPLETE"]
    folder = record.folder / "tensorboard"
    course = _scalars(folder / "study")
    best = [(step, value) for tag, step, value in course if tag == "ray/tune/best"]
    assert [step for step, _ in best] == [t.number for t in complete]
    assert best[-1][1] == pytest.approx(record.summary.best.score)
    assert all(a <= b for (_, a), (_, b) in pairwise(best))
    for trial in complete[:5]:
        own = _scalars(folder / f"trial-{trial.number:05d}")
        assert ("ray/tune/score", 1, pytest.approx(trial.score)) in own


def test_nothing_is_sent_twice_and_what_came_later_is(make_study, tmp_path):
    record = make_study(tmp_path / "s", limit=10)
    first = track(record.folder, "tensorboard", str(tmp_path / "tb"), once=True)
    assert first == len(_finished(record)) > 5
    assert track(record.folder, "tensorboard", str(tmp_path / "tb"), once=True) == 0
    assert track(record.folder, "tensorboard", str(tmp_path / "other"), once=True) == first


def test_mlflow_has_a_run_per_trial(make_study, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("optuna_integration", reason="the extra mlflow is not installed")
    record = make_study(tmp_path / "s", limit=8)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert track(record.folder, "mlflow", uri, once=True) == len(_finished(record))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(record.identity.study_id)
    runs = {int(r.data.tags["number"]): r for r in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {t.number for t in _finished(record)}
    for trial in _finished(record):
        found = runs[trial.number].data
        assert found.tags["composition"] == trial.text
        if trial.state.name == "COMPLETE":
            assert found.metrics["score"] == pytest.approx(trial.score)


def test_wandb_has_a_step_per_trial(make_study, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    pytest.importorskip("optuna_integration", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    record = make_study(tmp_path / "s", limit=6)
    assert track(record.folder, "wandb", "a-project", once=True) == len(_finished(record))
    files = list(tmp_path.rglob("run-*.wandb"))
    assert len(files) == 1
    data = files[0].read_bytes()
    for trial in _finished(record):
        if trial.score is not None and math.isfinite(trial.score):
            assert json.dumps(trial.score).encode() in data
