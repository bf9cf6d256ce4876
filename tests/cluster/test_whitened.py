"""Whitened cuts in a study: calibrated first, searched, killed, resumed, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from search.calibration.calibration import FILE, read_calibration
from search.study.study_record import StudyRecord

LEVELS = [0.2, "whitened/0.2", "whitened/rank:3"]


def write(given: Path, **changed: object) -> Path:
    questions = given.with_name("questions.jsonl")
    few = questions.read_text(encoding="utf-8").splitlines(keepends=True)[:96]
    questions.write_text("".join(few), encoding="utf-8")
    raw = yaml.safe_load(given.read_text())
    raw["space"] = {"levels": LEVELS, "max_interventions": 2}
    given.write_text(yaml.safe_dump(raw | changed))
    return given


@pytest.mark.slow
def test_a_study_with_whitened_levels_is_the_same_twice_and_resumes(
    tmp_path, make_study, one_process
) -> None:
    """From calibration on, in two folders of factors; the screen orders whitened cuts too."""
    calibration = {"tokens": 300}
    study = write(make_study(tmp_path / "study", trials=6), calibration=calibration)
    whole, half = tmp_path / "whole", tmp_path / "half"
    one_process("launch", study, "--out", whole, "--quiet")
    trials = StudyRecord.read(whole).trials
    assert "whitened" in {i.kind for trial in trials for i in trial.composition.interventions}
    noted = json.loads((whole / FILE).read_text())
    assert noted["said"] == "the prompts of validation"

    raw = yaml.safe_load(study.read_text()) | {"factors": str(tmp_path / "other")}
    study.write_text(yaml.safe_dump(raw))
    one_process("launch", study, "--out", half, "--quiet", "--trials", 3)
    one_process("resume", half, "--quiet", "--trials", 6)
    again = StudyRecord.read(half).trials
    assert [t.text for t in again] == [t.text for t in trials]
    assert [(t.score, t.values) for t in again] == [(t.score, t.values) for t in trials]
    one, other = (
        {ref: m.digest for ref, m in read_calibration(folder, str(folder)).items()}
        for folder in (whole, half)
    )
    assert one == other
    # Moments that were lost are measured again, and must be what the study began with.
    for path in (tmp_path / "other").rglob("moment-*.safetensors"):
        path.unlink()
    one_process("resume", half, "--quiet", "--trials", 7)
    changed = {"calibration": {"data": str(tmp_path / "texts.txt"), "tokens": 300}}
    (tmp_path / "texts.txt").write_text("Something else altogether.\n" * 90)
    frozen = yaml.safe_load((half / "study.yaml").read_text()) | changed
    (half / "study.yaml").write_text(yaml.safe_dump(frozen))
    done = one_process("resume", half, "--quiet", "--trials", 8, code=2)
    assert "calibration texts changed since the study began" in done.stderr


def test_data_that_is_not_there_is_refused_before_anything_starts(
    tmp_path, make_study, one_process
) -> None:
    study = write(make_study(tmp_path / "study"), calibration={"data": "./none.txt"})
    done = one_process("launch", study, "--out", tmp_path / "out", code=2)
    assert "none.txt does not exist" in done.stderr
    assert not (tmp_path / "out").exists()


def test_decompose_makes_whitened_factors(tmp_path, one_process) -> None:
    from search.demo.study import HERE

    factors = tmp_path / "factors"
    words = ("decompose", HERE / "model", "--factors", factors, "--address", "0.fc_in")
    done = one_process(*words, "--kind", "whitened", code=2)
    assert "--kind whitened needs texts for calibration; give --calibration" in done.stderr
    done = one_process(*words, "--kind", "prune", code=2)
    assert "--kind prune: this kind of cut has no factors" in done.stderr


def test_evaluate_wants_texts_that_are_not_scored(tmp_path, one_process) -> None:
    from search.demo.study import HERE

    words = ("evaluate", HERE / "model", "--task", "jsonl", "--data", HERE / "questions.jsonl")
    words += ("--factors", tmp_path / "factors", "--limit", 40, "--json")
    cut = ("--intervention", "0.fc_in=whitened/0.2")
    done = one_process(*words[:-3], *cut, code=2)
    assert "give some that are not scored with --calibration" in done.stderr
    done = one_process(*words[:-3], "--json", "--split", "test", *cut)
    assert "0.fc_in=whitened/0.2" in json.loads(done.stdout)["scores"]


def test_a_cut_by_hand_wants_texts_too(tmp_path, one_process) -> None:
    from search.demo.study import HERE

    words = ("cut", HERE / "model", "--intervention", "0.fc_in=whitened/0.2", "--no-verify")
    done = one_process(*words, "--out", tmp_path / "out", code=2)
    assert "0.fc_in=whitened/0.2 depends on the inputs of the matrix on texts" in done.stderr
    texts = HERE / "questions.jsonl"
    one_process(*words, "--out", tmp_path / "out", "--calibration", texts, "--format", "patch")
    assert (tmp_path / "out" / "patch.safetensors").exists()


def test_a_study_in_one_process_calibrates_too(tmp_path) -> None:
    import laser_search
    from search.demo.study import HERE

    lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()[:80]
    settings = {
        "space": {"levels": ["whitened/0.2"], "layers": [0], "matrices": ["fc_in"]},
        "calibration": {"tokens": 20},
    }
    laser_search.search(
        str(HERE / "model"),
        [json.loads(line) for line in lines],
        folder=tmp_path / "study",
        trials=1,
        max_interventions=1,
        validation=0.5,
        settings=settings,
        progress=False,
    )
    (trial,) = StudyRecord.read(tmp_path / "study").trials
    assert str(trial.composition) == "0.fc_in=whitened/0.2"
    assert len(read_calibration(tmp_path / "study", str(tmp_path))) == 1
