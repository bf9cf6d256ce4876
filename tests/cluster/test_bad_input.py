"""Bad input is one sentence with the value and the remedy, exit code 2, before Ray starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cluster.cli import main
from search.config import read_config
from search.demo.study import demo_config


@pytest.fixture
def run(monkeypatch, capsys):
    """The program in this process, which is quicker than a new one."""

    def call(*arguments: object, code: int = 0) -> SimpleNamespace:
        monkeypatch.setattr("sys.argv", ["laser-search", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    return call


DEMO = demo_config(Path("unused")).model_dump(mode="json")


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("model", {"path": "./no-such-model"}, ["no-such-model", "does not exist"]),
        ("model", {"head": "classifier"}, ["'classifier'", "head: causal"]),
        ("task", {"name": "sst3"}, ["sst3", "did you mean 'sst2'"]),
        ("task", {"data": "./question.jsonl"}, ["question.jsonl", "does not exist"]),
        ("space", {"matrices": ["fc_on"]}, ["fc_on", "did you mean 'fc_in'"]),
        ("space", {"layers": [7]}, ["space.layers", "7", "0 to 2"]),
        ("space", {"max_interventions": 40}, ["40", "only 6 matrices"]),
        ("search", {"strategy": "tpo"}, ["tpo", "did you mean 'tpe'"]),
        ("split", {"validation": 1.5}, ["1.5", "less than 1"]),
    ],
)
def test_launch(run, tmp_path: Path, section: str, change, words) -> None:
    data = {**DEMO, "factors": "./factors", section: {**DEMO[section], **change}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    done = run("launch", tmp_path / "study.yaml", code=2)
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "study.yaml"], "nothing may be created"


def test_a_storage_that_does_not_answer(run, tmp_path: Path) -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/none"
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({**DEMO, "factors": "./factors", "storage": url})
    )
    assert read_config(tmp_path / "study.yaml").storage == url
    done = run("launch", tmp_path / "study.yaml", code=2)
    assert "secret" not in done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_commands_on_what_is_no_study(run, tmp_path: Path) -> None:
    for command in ("resume", "status"):
        done = run(command, tmp_path / "absent", code=2)
        assert "contains no study" in done.stderr


def test_evaluate(run, tmp_path: Path) -> None:
    model, data = DEMO["model"]["path"], DEMO["task"]["data"]
    common = ["evaluate", model, "--task", "jsonl", "--data", data, "--factors", tmp_path / "f"]
    done = run(*common, "--intervention", "9.fc_in=0.1", code=2)
    assert "'9.fc_in' matches no matrix" in done.stderr
    done = run(*common, "--intervention", "2.fc_in", code=2)
    assert "MATRIX=RHO" in done.stderr
    good = run(*common, "--intervention", "2.fc_in=0.01", "--split", "validation")
    assert "difference +" in good.stdout


def digests(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("out", "there", "words"),
    [
        (".", "study.yaml", ["your", "study.yaml", "--out"]),
        ("other", "other/study.yaml", ["holds study.yaml", "--out"]),
        ("other", "other/result.json", ["holds result.json", "--out"]),
        ("other", "other/logs/mine.log", ["holds logs", "--out"]),
    ],
)
def test_a_launch_writes_over_nothing_of_the_users(
    run, tmp_path: Path, monkeypatch, out: str, there: str, words
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {**DEMO, "factors": "./factors"}
    (tmp_path / "study.yaml").write_text("# mine\n" + yaml.safe_dump(data))
    if there != "study.yaml":
        (tmp_path / there).parent.mkdir(parents=True)
        (tmp_path / there).write_text("mine")
    before = digests(tmp_path)
    done = run("launch", "study.yaml", "--out", out, code=2)
    assert all(word in done.stderr for word in words)
    assert done.stderr.count("\n") == 1
    assert digests(tmp_path) == before


def test_a_script_writes_over_nothing_of_the_users(run, tmp_path: Path) -> None:
    study, mine = tmp_path / "study.yaml", tmp_path / "mine.sh"
    study.write_text(yaml.safe_dump({**DEMO, "factors": "./factors"}))
    mine.write_text("#!/bin/sh\necho mine\n")
    before = digests(tmp_path)
    for taken in (mine, study):
        done = run("launch", study, "--on", "slurm", "--to", taken, code=2)
        assert f"{taken} exists and was not written by this command" in done.stderr
    assert digests(tmp_path) == before
    for _ in range(2):
        run("launch", study, "--on", "slurm", "--to", tmp_path / "ours.sh")


def test_code_of_a_checkpoint_is_announced_before_it_runs(run, tmp_path: Path, monkeypatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr("cluster.driver.make_plan", lambda config: ran.append("code") or 1 / 0)
    data = {**DEMO, "model": {**DEMO["model"], "trust_remote_code": True}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**data, "factors": "./factors"}))
    said: list[str] = []
    monkeypatch.setattr(
        "sys.stderr",
        SimpleNamespace(
            write=lambda text: said.append(text) or ran.append("said"), flush=lambda: None
        ),
    )
    with pytest.raises(ZeroDivisionError):
        run("launch", tmp_path / "study.yaml", "--out", tmp_path / "study")
    assert ran[:2] == ["said", "code"]
    assert "trust_remote_code is true" in said[0] and DEMO["model"]["path"] in said[0]
