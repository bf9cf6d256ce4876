"""``launch --plan``: the program says what a study takes and leaves nothing behind."""

import json

import pytest
import yaml

from cluster.forecast import workers_here
from search.sections import ClusterConfig


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    monkeypatch.setattr("cluster.forecast._seconds_of_import", lambda: 3.0)


def test_a_plan_is_printed_and_nothing_is_written(one_process, make_study, tmp_path):
    path = make_study(tmp_path / "given", workers=2, trials=10)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    out = tmp_path / "study"
    facts = json.loads(one_process("launch", path, "--out", out, "--plan", "--json").stdout)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not out.exists()
    assert facts["trials"] == 10 and facts["workers"]["workers"] == 2
    assert facts["phases_s"]["start"] > 2 * 3.0
    assert facts["total_s"] == pytest.approx(sum(facts["phases_s"].values()))
    assert len(facts["missing_factors"]) == len(facts["matrices"]) > 0


def test_a_study_on_a_cluster_is_told_what_is_not_known(one_process, make_study, tmp_path):
    path = make_study(tmp_path / "given", trials=5)
    data = yaml.safe_load(path.read_text())
    data["cluster"] = {"address": "somewhere:6379"}
    path.write_text(yaml.safe_dump(data))
    said = one_process("launch", path, "--plan").stdout
    assert "not of the cluster at somewhere:6379" in said and "time: about" in said


def test_workers_are_those_of_the_configuration():
    found = workers_here(ClusterConfig(max_concurrent=1, gpus_per_trial=0))
    assert (found.workers, found.device, found.import_s) == (1, "cpu", 3.0)
    assert found.threads >= 1
