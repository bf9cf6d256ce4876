"""docs/extending.md is a whole package: it is installed here, and searched and exported with."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from search.config import read_config
from search.study.study_record import StudyRecord

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, and the metadata that an installation would leave."""
    root = tmp_path / "package"
    for text in re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(), flags=re.S):
        name, _, body = text.partition("\n")
        path = root / name.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    info = root / f"my_laser-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in members.items())
        for group, members in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return root


def test_its_own_tests_pass(package: Path, forked) -> None:
    source = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    words = ["-q", "-p", "no:cacheprovider", package / "tests"]
    done = forked.run(source, *words, cwd=package)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d\d+ passed", done.stdout), "every suite has found its laws"


def test_it_searches_exports_and_reloads(package, tmp_path, make_study, one_process) -> None:
    study = make_study(tmp_path / "study", trials=8, strategy="last-first")
    raw = yaml.safe_load(study.read_text())
    raw["space"] = {"levels": [0.1, "row-scaled/0.1"]}
    study.write_text(yaml.safe_dump(raw))
    folder = tmp_path / "run"
    one_process("launch", study, "--out", folder)
    record = json.loads(one_process("status", folder, "--json").stdout)
    assert record["finished"] == 8
    trials = StudyRecord.read(folder).trials
    scaled = [t.number for t in trials if "row-scaled" in t.text]
    scores = {t.values[0] for t in trials if t.number in scaled}
    for listed, name in (("kinds", "row-scaled"), ("formats", "edited"), ("tasks", "opposites")):
        names = [one["name"] for one in json.loads(one_process(listed, "--json").stdout)]
        assert name in names, listed
    assert len(scaled) == 4 and len(scores) > 1, "its cuts are its own"
    for form in ("edited", "patch", "factored"):
        out = tmp_path / form
        words = ("--trial", scaled[0], "--format", form, "--anyway", "--json")
        said = one_process("export", folder, "--out", out, *words).stdout
        assert json.loads(said)["verdict"]["agrees"], said
    assert read_config(folder / "study.yaml").space.levels == ["0.1", "row-scaled/0.1"]
