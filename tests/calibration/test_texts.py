"""What a model is calibrated on: never a question of test; in an order that a seed decides."""

import json

import pytest

from search.calibration.texts import HeldOut, texts_of_data, texts_of_validation
from tasks.base import Example
from tasks.errors import InputError
from tasks.jsonl import Jsonl

CAPITAL = "The capital of the Kingdom of Norway is"


def example(name, group, prompt, answer="Oslo"):
    return Example(name, group, prompt, answer)


def test_validation_and_its_answers_are_read_and_no_group_of_test(tmp_path):
    task = Jsonl()
    rows = [
        {"prompt": f"{CAPITAL} {n}", "answer": f"city {n}", "group": f"g{n // 2}"}
        for n in range(40)
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = task.load(str(path))
    validation, test = examples[:10], examples[10:]
    found = texts_of_validation(task, validation, test, "causal", 1000, 0)
    assert {p.text + p.answer for p in found.passages} == {
        f"{CAPITAL} {n} city {n}" for n in range(10)
    }
    assert all(p.message for p in found.passages)
    with pytest.raises(InputError, match="validation and test share the group 'g4'"):
        texts_of_validation(task, examples[:9], examples[9:], "causal", 1000, 0)


def test_rows_of_held_out_groups_and_questions_are_left_out_of_a_file(tmp_path):
    held = [example("a", "Norway", CAPITAL), example("b", "x", "Short one")]
    rows = [
        {"text": "Nothing of the kind stands here.", "group": "Sweden"},
        {"text": "A paraphrase that no string shows.", "group": "Norway"},
        {"text": f"It is said: {CAPITAL.upper()}  Oslo, and so on.", "group": "other"},
        {"text": "capital of the kingdom of norway", "group": "other"},
        {"text": "short  ONE", "group": "other"},
        {"text": "A short one within a longer text is a common phrase.", "group": "other"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = texts_of_data(str(path), held, 1000, 0)
    assert {p.text for p in found.passages} == {rows[0]["text"], rows[5]["text"]}
    assert "4 texts that contain held-out questions" in found.said
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match="contains only test questions"):
        texts_of_data(str(path), held, 1000, 0)


def test_passages_of_a_text_file_that_quote_a_test_question_are_left_out(tmp_path):
    lines = [f"Line {n} of a long text about nothing that matters." for n in range(200)]
    lines[120] = f"And then: {CAPITAL} a city."
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines))
    found = texts_of_data(str(path), [example("a", "Norway", CAPITAL)], 1000, 0)
    assert not any(HeldOut([example("a", "g", CAPITAL)]).holds(p.text) for p in found.passages)
    assert len(found.passages) == 4
    assert "without 1 text" in found.said


def test_the_order_is_the_seeds_and_not_the_files(tmp_path):
    rows = [{"text": f"text number {n}"} for n in range(30)]
    orders = []
    for turn, seed in ((1, 0), (-1, 0), (1, 1)):
        path = tmp_path / f"texts{turn}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[::turn]))
        orders.append([p.text for p in texts_of_data(str(path), (), 100, seed).passages])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_a_file_without_texts_is_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"body": "x"}\n')
    with pytest.raises(InputError, match=r"has the fields body; calibration\.data needs one of"):
        texts_of_data(str(path), (), 100, 0)
