"""Files that change under a study: it stops, and is undisturbed once they are back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from search.demo.study import HERE
from search.evaluation.evaluator import Evaluator
from search.study.study_record import StudyRecord

STRIKE = 4
"""The job during which the file changes: some trials are known by then."""


def table(folder: Path) -> list[tuple[object, ...]]:
    trials = StudyRecord.read(folder).trials
    return [(t.number, t.values, t.effect, t.state.name) for t in trials]


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "questions.jsonl"])
def test_no_trial_is_of_another_file(
    tmp_path: Path, one_process, make_study, monkeypatch, file: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(HERE / "model", model)
    given = make_study(tmp_path, trials=6)
    study = yaml.safe_load(given.read_text())
    study["model"]["path"] = str(model)
    given.write_text(yaml.safe_dump(study))
    one_process("launch", given, "--out", tmp_path / "undisturbed", "--quiet")

    path = (tmp_path if file == "questions.jsonl" else model) / file
    whole = path.read_bytes()
    jobs = []

    def run(self, job):
        jobs.append(job)
        if len(jobs) == STRIKE:
            path.write_bytes(whole[:-9] + bytes(255 - byte for byte in whole[-9:]))
        return original(self, job)

    original = Evaluator.run
    monkeypatch.setattr(Evaluator, "run", run)
    struck = tmp_path / "struck"
    done = one_process("launch", given, "--out", struck, "--quiet", code=1)
    assert file in done.stderr, "the sentence names the file"
    assert jobs[STRIKE - 1].name in done.stderr, "and what was in flight"
    assert len(jobs) == STRIKE, "nothing runs after it"
    finished = [row for row in table(struck) if row[3] == "COMPLETE"]
    assert finished == table(tmp_path / "undisturbed")[: len(finished)]
    assert not (struck / "result.json").exists()

    path.write_bytes(whole)
    one_process("resume", struck, "--quiet")
    assert table(struck) == table(tmp_path / "undisturbed")
    results = [StudyRecord.read(tmp_path / name).result for name in ("struck", "undisturbed")]
    assert results[0] == results[1] is not None
