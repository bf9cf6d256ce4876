"""Data, studies and edits of another shape: a sentence, or what was meant."""

from __future__ import annotations

import json

import pytest

from search.config import read_config

DEEP = "[" * 200_000
QUESTIONS = [{"prompt": f"Question {i} is", "answer": str(i)} for i in range(10)]


def lines(**extra):
    return "".join(json.dumps({**row, **extra}) + "\n" for row in QUESTIONS)


BAD_DATA = {
    "surrogate.jsonl": (lines(prompt="a \ud83d"), ["line 1", "'prompt'", "half a character"]),
    "column.jsonl": (lines(note="\ud83d"), ["line 1", "'note'", "half a character"]),
    "name.jsonl": (lines(**{"\ud83d": 1}), ["line 1", "half a character"]),
    "choices.jsonl": (lines(choices=["\ude00", "b"]), ["'choices'", "half a character"]),
    "deep.jsonl": (DEEP, ["line 1", "nested too deeply"]),
    "deep.json": (DEEP, ["deep.json", "nested too deeply"]),
    "digits.jsonl": ('{"prompt": ' + "9" * 5000 + "}", ["line 1", "too many digits"]),
    "digits.json": ("[{" + f'"prompt": {"9" * 5000}' + "}]", ["digits.json", "too many digits"]),
    "twice.csv": ("prompt,answer,prompt\na,b,c\n", ["twice.csv line 1", "'prompt' twice"]),
    "twice.tsv": ("prompt\tanswer\tx\tx\na\tb\tc\td\n", ["twice.tsv line 1", "'x' twice"]),
    "text.parquet": ("hello", ["text.parquet", "not a complete Parquet file"]),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data(name, refused, model, tmp_path):
    content, words = BAD_DATA[name]
    (tmp_path / name).write_text(content)
    said = refused("evaluate", model, "--task", "jsonl", "--data", tmp_path / name)
    for word in words:
        assert word in said


@pytest.mark.parametrize("extra", [{"uid": 2**64 - 1}, {"uid": 10**400}, {"uid": -(2**63) - 1}])
def test_whole_numbers_of_any_size_are_columns(extra, tmp_path):
    import pyarrow.parquet as pq

    from search.study.questions import write_questions
    from tasks.datasets import split_by_group
    from tasks.jsonl import Jsonl

    (tmp_path / "q.jsonl").write_text(lines(**extra))
    write_questions(tmp_path, split_by_group(Jsonl().load(str(tmp_path / "q.jsonl")), 0.5))
    found = pq.read_table(tmp_path / "questions.parquet")["uid"].to_pylist()
    assert found == [str(extra["uid"])] * 10


def test_a_cell_may_be_a_document(tmp_path):
    from tasks.datasets import load_rows

    long = "a word " * 40_000
    (tmp_path / "q.csv").write_text(f'prompt,answer\n"{long}",b\n')
    assert load_rows(str(tmp_path / "q.csv"))[0]["prompt"] == long


BAD_STUDIES = {
    "model: {path: m}\nmodel: {path: n}\n": ["'model' twice", "lines 1 and 2"],
    "model: {path: m, path: n}\n": ["'path' twice"],
    DEEP: ["nested too deeply"],
    "a: 2020-99-99\n": ["month"],
    "a: " + "9" * 5000: ["digit"],
    "a: \x07": ["not valid YAML"],
    "a: &a [*a]\n": ["study.yaml"],
    "? [a]\n: b\n": ["study.yaml"],
    "!!python/object:os.system x": ["not valid YAML"],
    "- a\n": ["not contain a mapping"],
    "model: {path: m}\ntask: {name: jsonl}\nspace: {rho: [1e-2x]}": ["1e-2x"],
}


@pytest.mark.parametrize("text", BAD_STUDIES, ids=range(len(BAD_STUDIES)))
def test_studies(text, refused, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    said = refused("launch", tmp_path / "study.yaml")
    for word in BAD_STUDIES[text]:
        assert word in said


def test_numbers_with_an_exponent(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "model: {path: m}\ntask: {name: jsonl}\nspace: {rho: [1e-2, 5.e-1]}\n"
        "split: {validation: 2e-1}\nsearch: {race_error: 1e-3}\ncluster: {grace_s: 1e1}\n"
    )
    config = read_config(tmp_path / "study.yaml")
    assert config.space.rho == [0.01, 0.5] and config.split.validation == 0.2
    assert config.search.race_error == 0.001 and config.cluster.grace_s == 10


def test_a_merge_key_is_no_key_twice(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "model: &m {path: m}\ntask: {name: jsonl}\nsplit: {<<: {seed: 1}, validation: .5}\n"
    )
    assert read_config(tmp_path / "study.yaml").split.seed == 1


RECIPE = {
    "format": "laser-recipe-1", "base_model": "m", "revision": None, "head": "causal",
    "dtype": "float32", "base": "x", "composition": {"schema": 1, "interventions": []},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "floaty"}, ["dtype is 'floaty'", "bfloat16"]),
        ({"dtype": ["float32"]}, ["dtype"]),
        ({"head": "tail"}, ["head is 'tail'", "causal"]),
        (
            {"format": "laser-recipe-9"},
            ["laser-recipe-9", "the version of laser-search that wrote it"],
        ),
        ({"base": 3}, ["base is 3"]),
        ({"composition": []}, ["composition"]),
        ({"revision": 3}, ["revision is 3"]),
        ({"tensors": []}, ["tensors"]),
        ({"extra": 1}, ["extra"]),
    ],
)
def test_recipes(change, words, refused, model, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**RECIPE, **change}))
    said = refused("apply", path, "--model", model, "--out", tmp_path / "out")
    for word in words:
        assert word in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[]", "3", DEEP, "{", '{"format": ' + "9" * 5000 + "}", "\x00"])
def test_recipes_of_no_shape(text, refused, model, tmp_path):
    (tmp_path / "recipe.json").write_text(text)
    assert "recipe.json is not a patch or recipe" in refused(
        "apply", tmp_path / "recipe.json", "--model", model, "--out", tmp_path / "out"
    )
