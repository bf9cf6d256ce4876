"""What laser-search wrote before cuts had levels: a study, its factors and a patch are read still.

tests/old holds them: a study of the demo's model killed after six of fourteen trials, with a trial
in flight; `trials.json` is what that version made of it when it went on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from search.demo.study import HERE
from search.study.study_record import StudyRecord
from search.weights.factors import FactorCache

OLD = Path(__file__).parents[1] / "old"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy, where its study finds the model, the questions and the factors."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    frozen = folder / "study" / "study.yaml"
    text = frozen.read_text().replace("/tmp/demo/model", str(HERE / "model"))
    frozen.write_text(text.replace("/tmp/demo", str(folder)))
    return folder


def test_an_old_study_goes_on_as_it_would_have(old: Path, one_process) -> None:
    before = FactorCache(old / "factors").index()
    one_process("resume", old / "study", "--accept-change")  # of torch's version, perhaps
    expected = json.loads((OLD / "trials.json").read_text())
    trials = StudyRecord.read(old / "study").trials
    assert [t.text for t in trials] == [row["composition"] for row in expected]
    assert [t.effect for t in trials] == [row["effect"] for row in expected]
    # Another processor may round otherwise, and a tie may break; here the scores are the same.
    assert [t.values[0] for t in trials[:6]] == [row["score"] for row in expected[:6]]
    assert FactorCache(old / "factors").index().keys() == before.keys(), "none was computed again"


def test_old_factors_are_found_by_their_keys(old: Path) -> None:
    from search.model import ModelSource
    from search.origin import WeightOrigin
    from search.weights.matrices import find_matrices

    source = ModelSource(str(HERE / "model"))
    cache = FactorCache(old / "factors")
    found = [
        cache.has(cache.key(WeightOrigin(source).read(matrix)))
        for matrix in find_matrices(source.skeleton())
        if str(matrix.ref) in ("1.fc_out", "2.fc_out")
    ]
    assert found == [True, True]


def test_an_old_patch_gives_the_bytes_it_promises(old: Path, one_process, tmp_path: Path) -> None:
    words = ("--model", HERE / "model", "--out", tmp_path / "dense", "--json")
    said = one_process("apply", old / "patch", *words).stdout
    assert json.loads(said)["bit_for_bit"] is True
