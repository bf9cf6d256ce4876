"""A study from its configuration to an exported model, through the program itself."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from search.plan import make_plan
from search.study.lock import driver_lock
from search.study.outcomes import read_outcomes
from search.study.study_record import StudyRecord
from tasks.errors import InputError

TRIALS = 12
DEADLY_TRIALS = 30
LONG_S = 300


def test_status_says_where_it_stands(finished: Path, run) -> None:
    found = json.loads(run("status", finished, "--json").stdout)
    assert found["finished"] == found["complete"] == found["asked"] == TRIALS
    assert found["running"] == found["failed"] == 0
    assert found["best"]["score"] > found["baseline"]
    assert found["result"]["trial"] == found["best"]["trial"]
    text = run("status", finished).stdout
    assert f"{TRIALS} of {TRIALS} finished" in text


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory, run, make_several) -> Path:
    """On Ray: several tasks, a floor, a guard, trials stopped early, a confirmed winner."""
    folder = tmp_path_factory.mktemp("everything")
    search = {"chunks": 4, "pruner": "median", "confirm": {"share": 0.3, "finalists": 2}}
    study = make_several(folder, trials=16, **search)
    with study.open("a") as stream:
        stream.write("guard: {worse_by: 0.5, sample_tokens: 200}\n")
    run("launch", study, "--out", folder / "study")
    return folder / "study"


def trials_of(study: Path) -> list[tuple[object, ...]]:
    return [
        (
            *(t.number, t.state.name, t.params, t.values, t.steps, t.effect, t.scores),
            *(t.violations, t.soft_score),
        )
        for t in StudyRecord.read(study).trials
    ]


@pytest.mark.parametrize("kind", ["finished", "everything"])
def test_the_cluster_agrees_with_one_process(
    kind: str, request: pytest.FixtureRequest, one_process, tmp_path: Path
) -> None:
    theirs, ours = request.getfixturevalue(kind), tmp_path / "study"
    one_process("launch", theirs.parent / "study.yaml", "--out", ours)
    assert trials_of(ours) == trials_of(theirs)
    assert StudyRecord.read(ours).result == StudyRecord.read(theirs).result
    judged = [t for t in StudyRecord.read(ours).trials if t.complete and kind == "everything"]
    assert all("general text.worse_by" in t.violations for t in judged)
    names = {path.name for path in (theirs / "outcomes").iterdir()}
    assert names == {path.name for path in (ours / "outcomes").iterdir()}, "other evaluations"


def test_trials_are_ranked_by_their_answers(finished: Path) -> None:
    record = StudyRecord.read(finished)
    complete = [t for t in record.trials if t.complete]
    assert len(complete) > 1
    for trial in complete:
        name = f"trial-{trial.number:05d}"
        stored = read_outcomes(finished, name, record.identity.study_id, trial.effect)
        missed = [
            (1 - math.exp(o.log_probability)) ** 2 if o.brier is None else o.brier
            for o in stored.outcomes
        ]
        soft = [o.score + 1 - off for o, off in zip(stored.outcomes, missed, strict=True)]
        assert trial.soft_score == pytest.approx(math.fsum(soft) / len(soft), rel=1e-12)
    assert record.summary.winner.soft_score == max(t.soft_score for t in complete)


def test_resuming_a_finished_study_changes_nothing(finished: Path, run) -> None:
    before = {p: p.read_bytes() for p in sorted((finished / "outcomes").iterdir())}
    table = [(t.number, t.score) for t in StudyRecord.read(finished).trials]
    run("resume", finished, "--quiet")
    assert {p: p.read_bytes() for p in sorted((finished / "outcomes").iterdir())} == before
    assert [(t.number, t.score) for t in StudyRecord.read(finished).trials] == table


def test_launching_into_a_study_is_refused(finished: Path, run) -> None:
    done = run("launch", finished.parent / "study.yaml", "--out", finished, code=2)
    assert "laser-search resume" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_exported_model_gives_the_trials_own_predictions(
    finished: Path, run, tmp_path: Path, rounding
) -> None:
    out = tmp_path / "model"
    run("export", finished, "--out", out, "--anyway")
    record = StudyRecord.read(finished)
    winner = record.summary.winner
    facts = json.loads((out / "interventions.json").read_text())
    assert facts["trial"] == winner.number
    stored = read_outcomes(
        finished,
        f"trial-{winner.number:05d}",
        record.identity.study_id,
        winner.effect,
    )
    # Plain transformers, one question at a time, nothing of ours.
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    exact = rounding.exact(model)
    tokenizer = AutoTokenizer.from_pretrained(out)
    plan = make_plan(record.config)
    asked = {example.id: example for example in plan.split.validation}
    assert len(stored.outcomes) > 80, "a tenth of this is asked again"
    figures = []
    for outcome in stored.outcomes[::8]:
        example = asked[outcome.example_id]
        ids = tokenizer(example.prompt, return_tensors="pt")
        with torch.no_grad():
            plain, logits = (one(**ids).logits[0, -1].double() for one in (model, exact))
        rounding.decided(logits)
        said = tokenizer.decode(logits.argmax()).strip()
        assert said == outcome.prediction.strip()
        assert (said == example.answer) == bool(outcome.score)
        token = tokenizer(" " + example.answer, add_special_tokens=False)["input_ids"][0]
        own = [torch.log_softmax(one, -1)[token].item() for one in (plain, logits)]
        figures.append((outcome.log_probability, *own))
    rounding.check(*zip(*figures, strict=True))
    base = plan.source.load().state_dict()
    cut = {row["matrix"] for row in facts["composition"]["interventions"]}
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, base[n])}
    assert len(changed) == len(cut)


def test_export_refuses_what_it_cannot_do(finished: Path, run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert (
        "not empty"
        in run("export", finished, "--out", tmp_path / "full", "--anyway", code=2).stderr
    )
    missing = run("export", finished, "--out", tmp_path / "m", "--trial", 999, code=2)
    assert "trial 999 does not exist" in missing.stderr
    assert "contains no study" in run("export", tmp_path, "--out", tmp_path / "m", code=2).stderr


def test_a_second_driver_is_refused_and_dead_workers_are_replaced(
    run, make_study, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    path = make_study(tmp_path, workers=2, trials=DEADLY_TRIALS)
    refused: list[str] = []

    def pids() -> set[int]:
        return {int(path.stem.rsplit("-", 1)[1]) for path in study.glob("logs/worker-*.jsonl")}

    def interfere() -> None:
        """While the study runs: kill both workers once they have loaded, be a second driver."""
        deadline = time.monotonic() + LONG_S
        killed: set[int] = set()
        while len(killed) < 2 and time.monotonic() < deadline:
            for pid in sorted(pids() - killed)[: 2 - len(killed)]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.02)
        try:
            with driver_lock(study):
                pass
        except InputError as error:
            refused.append(str(error))

    beside = threading.Thread(target=interfere)
    beside.start()
    run("launch", path, "--out", study, "--quiet")
    beside.join()
    assert refused and f"pid {os.getpid()}" in refused[0], "a study has one driver"
    assert len(pids()) >= 3, "others come for the dead workers"
    summary = StudyRecord.read(study).summary
    assert (summary.finished, summary.running) == (DEADLY_TRIALS, 0)
    evaluated = StudyRecord.read(study).trials
    effects = [t.effect for t in evaluated]
    assert len(set(effects)) == len(effects) == DEADLY_TRIALS, "nothing is evaluated twice"


def check_pruned(study: Path) -> None:
    record = StudyRecord.read(study)
    pruned = [t for t in record.trials if t.state.name == "PRUNED"]
    assert record.summary.finished == len(record.trials) == 16
    assert record.summary.pruned == len(pruned) > 0, "the pruner was to give some trials up"
    for trial in pruned:
        assert 1 <= len(trial.steps) < 4, "it ends after a chunk, before the last"


def test_stopping_early_prunes(one_process, make_study, tmp_path: Path) -> None:
    path = make_study(tmp_path, trials=16, pruner="median", chunks=4)
    one_process("launch", path, "--out", tmp_path / "study", "--quiet")
    check_pruned(tmp_path / "study")
    assert StudyRecord.read(tmp_path / "study").summary.winner is not None


def test_stopping_early_prunes_on_ray(everything: Path) -> None:
    check_pruned(everything)
