"""A result.json of another shape is a sentence that says how to have it again."""

from __future__ import annotations

import json

import pytest
import yaml

from search.study.identity import Identity

COMPARED = dict.fromkeys(("baseline", "winner", "difference", "low", "high"), 0.5)
GOOD = {"trial": None, "composition": "baseline", "scores": {}, "comparisons": {}, "columns": {}}


@pytest.fixture
def folder(tmp_path):
    Identity("s" * 8, "2026", {}, *"wces").write(tmp_path)
    data = {"model": {"path": "m"}, "task": {"name": "jsonl"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    return tmp_path


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize(
    "found",
    [
        [], 3, {}, {"x": 1}, {**GOOD, "scores": []}, {**GOOD, "scores": {"baseline": 3}},
        {**GOOD, "scores": {"baseline": {"test": 3}}}, {**GOOD, "comparisons": None},
        {**GOOD, "comparisons": {"test": 3}}, {**GOOD, "comparisons": {"test": {}}},
        {**GOOD, "comparisons": {"test": {**COMPARED, "low": "x"}}}, {**GOOD, "trial": "1"},
        {**GOOD, "comparisons": {"validation": COMPARED}}, {**GOOD, "tasks": {"a": 3}},
        {**GOOD, "floors": []},
    ],
)  # fmt: skip
def test_another_shape(command, found, refused, folder):
    (folder / "result.json").write_text(json.dumps(found))
    said = refused(command, folder)
    assert "result.json is damaged" in said and "writes it again" in said


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\x00", "9" * 5000])
def test_no_json(text, refused, folder):
    (folder / "result.json").write_text(text)
    assert "result.json is damaged" in refused("status", folder)


def test_a_sound_one(run, folder):
    (folder / "result.json").write_text(json.dumps(GOOD))
    assert run("status", folder)[0] == 0
