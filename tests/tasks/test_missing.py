"""A missing value is missing in whatever way a file writes it, and never becomes a text."""

import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.bigbench import BigBench
from tasks.datasets import load_rows, split_by_group
from tasks.errors import InputError
from tasks.glue import Glue
from tasks.jsonl import Jsonl
from tasks.readers import Row
from tasks.splits import split_examples
from tasks.truthfulqa import TruthfulQA

NAN = math.nan
ASKED = [(f"Question {n} is", str(n)) for n in range(40)]


def _rows(group):
    """40 questions, of which the first six name their group; `group` is that of the rest."""
    return [
        {"prompt": prompt, "answer": answer, "group": n if n < 6 else group}
        for n, (prompt, answer) in enumerate(ASKED)
    ]


@pytest.fixture
def files(write, tmp_path):
    """The same 40 questions with a missing group, in all the ways that files write one."""

    def table(name, missing, separator=","):
        with (tmp_path / name).open("w", newline="") as stream:
            lines = csv.writer(stream, delimiter=separator)
            lines.writerow(["prompt", "answer", "group"])
            lines.writerows([*ASKED[n], f"{n}.0" if n < 6 else missing] for n in range(40))
        return str(tmp_path / name)

    def parquet(name, groups):
        columns = {"prompt": [p for p, _ in ASKED], "answer": [a for _, a in ASKED]}
        pq.write_table(pa.table({**columns, "group": groups}), tmp_path / name)
        return str(tmp_path / name)

    floats = [float(n) if n < 6 else NAN for n in range(40)]
    integers = [n if n < 6 else None for n in range(40)]
    return {
        "null": write("null.jsonl", _rows(None)),
        "empty": write("empty.jsonl", _rows("")),
        "blank": write("blank.jsonl", _rows(" ")),
        "NaN in lines": write("nan.jsonl", _rows(NAN)),
        "NaN in a list": write("nan.json", _rows(NAN)),
        "absent": write(
            "absent.jsonl", [{k: v for k, v in row.items() if v != ""} for row in _rows("")]
        ),
        "Parquet floats": parquet("floats.parquet", pa.array(floats)),
        "Parquet halves": parquet("halves.parquet", pa.array(floats).cast(pa.float16())),
        "Parquet integers": parquet("integers.parquet", pa.array(integers)),
        **{
            f"CSV {missing!r}": table(f"{number}.csv", missing)
            for number, missing in enumerate(("", " ", "nan", "NaN", "<NA>"))
        },
        "TSV NaN": table("t.tsv", "NaN", "\t"),
    }


def test_a_missing_group_makes_a_row_its_own_group_in_every_format(files):
    split = {}
    for how, file in files.items():
        examples = Jsonl().load(file)
        assert len({e.group for e in examples}) == 40, how
        assert [e.group for e in examples[:6]] == ["0", "1", "2", "3", "4", "5"], how
        parts = split_by_group(examples, 0.2)
        assert (len(parts.validation), len(parts.test)) == (8, 32), how
        split[how] = {e.prompt for e in parts.validation}
    assert len({frozenset(prompts) for prompts in split.values()}) == 1, split


def test_one_number_is_one_group_however_it_is_written(write):
    rows = [
        {"prompt": "a", "answer": "x", "group": 1},
        {"prompt": "b", "answer": "x", "group": 1.0},
        {"prompt": "c", "answer": "x", "group": "1"},
        {"prompt": "d", "answer": "x", "group": 1.5},
        {"prompt": "e", "answer": "x", "group": 1e20},
        {"prompt": "f", "answer": "x", "group": 10**20},
        {"prompt": "g", "answer": "x", "group": -0.0},
        {"prompt": "h", "answer": "x", "group": 0},
    ]
    groups = [e.group for e in Jsonl().load(write("q.jsonl", rows))]
    assert groups == ["1", "1", "1", "1.5", str(10**20), str(10**20), "0", "0"]
    table = "prompt,answer,group,id\na,x,1,7.0\nb,x,1.0,8.0\nc,x,v1.0,9\n"
    examples = Jsonl().load(write("q.csv", table))
    assert [e.group for e in examples] == ["1", "1", "v1.0"]
    assert [e.id for e in examples] == ["7", "8", "9"]


def test_nan_is_in_no_text_and_no_column(write, tmp_path):
    rows = [
        {"prompt": "a", "answer": "x", "choices": NAN, "id": NAN, "level": 2.5, "kind": "k"},
        {"prompt": "b", "answer": "y", "choices": ["x", "y"], "level": NAN, "kind": NAN},
        {"prompt": "c", "answer": "nan", "kind": "nan"},
    ]
    first, second, third = Jsonl().load(write("q.jsonl", rows))
    assert (first.choices, first.columns) == ((), {"level": 2.5, "kind": "k"})
    assert second.columns == {}
    assert (third.answer, third.columns) == ("nan", {"kind": "nan"})  # a text that says so
    assert "nan" not in first.id
    table = "prompt,answer,choices,level,text_pair\na,x,nan,NaN,nan\n"
    (one,) = Jsonl().load(write("q.csv", table))
    assert (one.choices, one.columns) == ((), {})
    texts = [{"text": "a", "label": 1.0, "text_pair": NAN}, {"text": "b", "label": 0}]
    first, second = Jsonl().load(write("t.jsonl", texts))
    assert (first.text_pair, first.answer, second.answer) == (None, "1", "0")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": "x", "answer": NAN}, "'answer'"),
        ({"prompt": NAN, "answer": "x"}, "'prompt'"),
        ({"text": "x", "label": NAN}, "'label'"),
        ({"text": NAN, "label": 1}, "'text'"),
        ({"prompt": "x", "answer": "y", "choices": ["y", NAN]}, r"'choices\[1\]'"),
        ({"prompt": "x", "answer": "y", "choices": '["y", NaN]'}, r"'choices\[1\]'"),
    ],
)
def test_what_must_be_there_and_is_nan_is_missing(write, row, field):
    with pytest.raises(InputError, match=f"q.jsonl line 1: field {field} is None, expected text"):
        Jsonl().load(write("q.jsonl", [row]))


@pytest.mark.parametrize("field", ["prompt", "answer", "group", "id"])
@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_infinity_is_no_text(write, field, number):
    row = {"prompt": "x", "answer": "y", field: number}
    with pytest.raises(InputError, match=f"line 1: field '{field}' is {number}, expected text"):
        Jsonl().load(write("q.jsonl", [row]))


def test_a_table_that_means_the_word_is_told_how(write):
    with pytest.raises(InputError, match=r"q.csv line 2: field 'answer'.*'nan'.*\.jsonl"):
        Jsonl().load(write("q.csv", "prompt,answer\nMy other gran is my,nan\n"))


def test_words_that_some_programs_read_as_missing_stay_words(write):
    words = ["null", "NA", "None", "none", "n/a", "nano", "NaNs"]
    table = "prompt,answer\n" + "".join(f"say {word},{word}\n" for word in words)
    assert [e.answer for e in Jsonl().load(write("q.csv", table))] == words


def test_nan_inside_lists_and_objects_is_missing_too(write):
    row = load_rows(write("q.jsonl", [{"a": [1, NAN], "b": {"c": NAN, "d": [[NAN]]}}]))[0]
    assert row == {"a": [1, None], "b": {"c": None, "d": [[None]]}}
    assert Row({"a": NAN}, "here") == {"a": None}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (BigBench(), {"input": "x", "target": ["y", NAN]}),
        (BigBench(), {"input": "x", "target": NAN}),
        (BigBench(), {"input": "x", "target_scores": {"y": 1, "n": NAN}}),
        (
            BigBench(),
            {"input": "x", "multiple_choice_targets": [NAN, "y"], "multiple_choice_scores": [1, 0]},
        ),
        (TruthfulQA(), {"question": "x", "mc2_targets": {"choices": [NAN], "labels": [1]}}),
        (TruthfulQA(), {"question": "x", "mc2_targets": '{"choices": [NaN], "labels": [1]}'}),
        (TruthfulQA(), {"question": "x", "mc2_targets": {"choices": ["y"], "labels": [NAN]}}),
        (Glue("cola"), {"sentence": "x", "label": NAN}),
    ],
)
def test_nan_in_the_files_of_benchmarks_is_refused(write, task, row):
    with pytest.raises(InputError, match=r"q.jsonl line 1"):
        task.load(write("q.jsonl", [row]))


def test_a_prefix_that_is_nan_is_none(write):
    data = {"task_prefix": NAN, "examples": [{"input": "x", "target": "y"}]}
    assert BigBench().load(write("b.json", data))[0].prompt == "x"


def test_labels_that_became_floats_are_still_labels(write):
    rows = [{"sentence": "x", "label": 1.0}, {"sentence": "y", "label": 0.0}]
    assert [e.label for e in Glue("cola").load(write("q.jsonl", rows))] == [1, 0]
    table = "sentence\tlabel\nx\t1.0\ny\t0.0\n"
    assert [e.label for e in Glue("cola").load(write("q.tsv", table))] == [1, 0]


def test_rows_from_the_hub_are_read_alike(monkeypatch):
    import datasets

    rows = [json.loads(json.dumps(row)) for row in _rows(NAN)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["test"])
    parts = split_examples(Jsonl().load("someone/questions"), 0.2)
    assert (len(parts.validation), len(parts.test)) == (8, 32)
