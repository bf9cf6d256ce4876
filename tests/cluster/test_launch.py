"""A study from its configuration to an exported model, through the program itself."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from search.config import read_config
from search.evaluation.setup import open_bench
from search.loop import run_study
from search.plan import make_plan
from search.study.identity import Identity
from search.study.lock import driver_lock
from search.study.outcomes import read_outcomes
from search.study.record import StudyRecord
from search.study.study import Study
from tasks.errors import InputError

TRIALS = 12
ROOT = Path(__file__).parents[2]


def test_status_says_where_it_stands(finished: Path, run) -> None:
    found = json.loads(run("status", finished, "--json").stdout)
    assert found["finished"] == found["complete"] == found["asked"] == TRIALS
    assert found["running"] == found["failed"] == 0
    assert found["best"]["score"] > found["baseline"]
    assert found["result"]["trial"] == found["best"]["trial"]
    text = run("status", finished).stdout
    assert f"{TRIALS} of {TRIALS} finished" in text


def test_the_cluster_agrees_with_one_process(finished: Path, tmp_path: Path) -> None:
    config = read_config(finished / "study.yaml")
    torch.set_num_threads(os.cpu_count() or 1)
    plan = make_plan(config)
    identity = Identity.read(finished)
    study = Study(tmp_path, identity, config, plan.space, plan.max_ranks)
    parts = {"validation": plan.split.validation, "test": plan.split.test}
    bench = open_bench(
        plan.source,
        plan.task,
        parts,
        Path(config.factors),
        study_id=identity.study_id,
        tokens_per_batch=config.tokens_per_batch,
    )
    run_study(study, bench)
    theirs = StudyRecord.read(finished).trials
    ours = study.trials()
    assert [t.params for t in ours] == [t.params for t in theirs]
    assert [t.value for t in ours] == [t.value for t in theirs]
    fresh = dict(plan.source.load().named_parameters())
    for name, parameter in bench.editor.model.named_parameters():
        assert torch.equal(parameter, fresh[name]), name


def test_resuming_a_finished_study_changes_nothing(finished: Path, run) -> None:
    before = {p: p.read_bytes() for p in sorted((finished / "outcomes").iterdir())}
    table = [(t.number, t.value) for t in StudyRecord.read(finished).trials]
    run("resume", finished, "--quiet")
    assert {p: p.read_bytes() for p in sorted((finished / "outcomes").iterdir())} == before
    assert [(t.number, t.value) for t in StudyRecord.read(finished).trials] == table


def test_launching_into_a_study_is_refused(finished: Path, run) -> None:
    done = run("launch", finished.parent / "study.yaml", "--out", finished, code=2)
    assert "laser-search resume" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_exported_model_gives_the_trials_own_predictions(
    finished: Path, run, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    run("export", finished, "--out", out)
    record = StudyRecord.read(finished)
    winner = record.summary.winner
    facts = json.loads((out / "interventions.json").read_text())
    assert facts["trial"] == winner.number
    stored = read_outcomes(
        finished,
        f"trial-{winner.number:05d}",
        record.identity.study_id,
        winner.user_attrs["effect"],
    )
    # Plain transformers, one question at a time, nothing of ours.
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    plan = make_plan(record.config)
    asked = {example.id: example for example in plan.split.validation}
    for outcome in stored.outcomes[::8]:
        example = asked[outcome.example_id]
        ids = tokenizer(example.prompt, return_tensors="pt")
        with torch.no_grad():
            logits = model(**ids).logits[0, -1]
        said = tokenizer.decode(logits.argmax()).strip()
        assert said == outcome.prediction.strip()
        assert (said == example.answer) == bool(outcome.score)
        answer = tokenizer(" " + example.answer, add_special_tokens=False)["input_ids"]
        expected = torch.log_softmax(logits, -1)[answer[0]].item()
        assert outcome.log_probability == pytest.approx(expected, abs=1e-5)
    base = plan.source.load().state_dict()
    cut = {row["matrix"] for row in facts["composition"]["interventions"]}
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, base[n])}
    assert len(changed) == len(cut)


def test_export_refuses_what_it_cannot_do(finished: Path, run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "not empty" in run("export", finished, "--out", tmp_path / "full", code=2).stderr
    missing = run("export", finished, "--out", tmp_path / "m", "--trial", 999, code=2)
    assert "trial 999 does not exist" in missing.stderr
    assert "holds no study" in run("export", tmp_path, "--out", tmp_path / "m", code=2).stderr


def test_a_second_driver_is_refused_and_a_dead_worker_replaced(
    start, make_study, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    path = make_study(tmp_path, workers=2, trials=60)
    driver = start("launch", path, "--out", study, "--quiet")
    deadline = time.monotonic() + 300
    while not (logs := list(study.glob("logs/worker-*.jsonl"))):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.1)
    os.kill(int(logs[0].stem.rsplit("-", 1)[1]), signal.SIGKILL)
    # In this process: a second program would take longer to start than the study to finish.
    with pytest.raises(InputError, match=f"pid {driver.pid}"), driver_lock(study):
        pass
    assert driver.wait(timeout=200) == 0
    summary = StudyRecord.read(study).summary
    assert (summary.finished, summary.running) == (60, 0)
    evaluated = StudyRecord.read(study).trials
    effects = [t.user_attrs["effect"] for t in evaluated]
    assert len(set(effects)) == len(effects) == 60


def test_stopping_early_prunes(run, make_study, tmp_path: Path) -> None:
    path = make_study(tmp_path, trials=16, pruner="median", chunks=4)
    run("launch", path, "--out", tmp_path / "study", "--quiet")
    record = StudyRecord.read(tmp_path / "study")
    summary = record.summary
    assert summary.finished == 16
    assert summary.pruned > 0
    assert summary.winner is not None
    for trial in record.trials:
        if trial.state.name == "PRUNED":
            assert 1 <= len(trial.intermediate_values) < 4
