import math

import pytest

from tasks.base import Choose, Chosen, Classified, Classify, Complete, Completed
from tasks.errors import InputError
from tasks.jsonl import Jsonl

TASK = Jsonl()


def test_questions(write):
    rows = [
        {"prompt": "Ann lives in", "answer": "Rome", "group": "Ann", "id": "a1", "rare": True},
        {"prompt": "2 + 2 =", "answer": 4, "choices": [3, 4], "notes": ["kept out"], "p": 0.5},
    ]
    first, second = TASK.load(write("q.jsonl", rows))
    assert (first.id, first.group, first.columns) == ("a1", "Ann", {"rare": True})
    assert (second.answer, second.choices, second.label) == ("4", ("3", "4"), 1)
    assert second.columns == {"p": 0.5}
    assert TASK.request(first, "causal") == Complete("Ann lives in", " Rome")
    assert TASK.request(first, "masked") == Complete("Ann lives in [MASK].", " Rome")
    assert TASK.request(second, "causal") == Choose("2 + 2 =", (" 3", " 4"))


def test_a_table_of_questions(write):
    file = write("q.csv", 'prompt,answer,choices,group\nx,yes,"[""yes"",""no""]",g\ny,no,,\n')
    first, second = TASK.load(file)
    assert first.choices == ("yes", "no")
    assert (second.choices, second.label, second.columns) == ((), None, {})


@pytest.mark.parametrize(
    ("prompt", "head", "asked", "answer"),
    [
        ("ends with a space ", "causal", "ends with a space ", "A"),
        ("ends with a break\n", "causal", "ends with a break\n", "A"),
        ("a <mask> inside", "masked", "a [MASK] inside", " A"),
        ("a [MASK] inside", "masked", "a [MASK] inside", " A"),
        ("[MASK] first", "masked", "[MASK] first", "A"),
        ("un[MASK]", "masked", "un[MASK]", "A"),
        ("at the end", "masked", "at the end [MASK].", " A"),
    ],
)
def test_where_the_answer_goes(write, prompt, head, asked, answer):
    (example,) = TASK.load(write("q.jsonl", [{"prompt": prompt, "answer": "A"}]))
    assert TASK.request(example, head) == Complete(asked, answer)


def test_texts(write):
    rows = [
        {"text": "good", "label": "Joy", "source": "x"},
        {"text": "bad", "text_pair": "worse", "label": "anger"},
    ]
    first, second = TASK.load(write("t.jsonl", rows))
    assert TASK.request(first, "classifier") == Classify("good")
    assert TASK.request(second, "classifier") == Classify("bad", "worse")
    reply = Classified((math.log(0.2), math.log(0.8)), ("anger", "joy"))
    outcome = TASK.outcome(first, reply)
    assert (outcome.score, outcome.prediction) == (1.0, "joy")
    assert outcome.log_probability == pytest.approx(math.log(0.8))
    assert TASK.outcome(second, reply).score == 0.0


def test_labels_may_be_indices(write):
    for file in (
        write("t.jsonl", [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]),
        write("t.csv", "text,label\ngood,1\nbad,0\n"),
    ):
        first, second = TASK.load(file)
        reply = Classified((math.log(0.2), math.log(0.8)), ("anger", "joy"))
        assert [TASK.outcome(e, reply).score for e in (first, second)] == [1.0, 0.0]
        assert TASK.outcome(first, Classified((-3.0, -0.1))).prediction == "1"


def test_a_label_that_the_model_lacks(write):
    (example,) = TASK.load(write("t.jsonl", [{"text": "x", "label": "hapy"}]))
    with pytest.raises(InputError, match=r"'hapy'.*sad, happy.*did you mean 'happy'"):
        TASK.outcome(example, Classified((-1.0, -1.0), ("sad", "happy")))
    (example,) = TASK.load(write("t.jsonl", [{"text": "x", "label": 2}]))
    with pytest.raises(InputError, match="'2'"):
        TASK.outcome(example, Classified((-1.0, -1.0), ("sad", "happy")))


def test_scores_of_questions(write):
    rows = [
        {"prompt": "x", "answer": "b", "choices": ["a", "b"]},
        {"prompt": "y", "answer": "c"},
    ]
    choice, openly = TASK.load(write("q.jsonl", rows))
    outcome = TASK.outcome(choice, Chosen((-2.0, -1.0), (1, 3)))
    assert (outcome.score, outcome.prediction) == (1.0, "b")
    outcome = TASK.outcome(openly, Completed(-2.0, False, 1, " d"))
    assert (outcome.score, outcome.prediction, outcome.log_probability) == (0.0, "d", -2.0)


@pytest.mark.parametrize(
    ("row", "head", "words"),
    [
        ({"prompt": "x", "answer": "y"}, "classifier", "prompt and answer need a causal"),
        ({"text": "x", "label": "y"}, "causal", "text and label need a classification"),
        ({"text": "x", "label": 0}, "masked", "text and label need a classification"),
    ],
)
def test_rows_and_head_must_fit(write, row, head, words):
    (example,) = TASK.load(write("q.jsonl", [row]))
    with pytest.raises(InputError, match=words):
        TASK.request(example, head)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x"}, ["line 2", "'answer' is missing"]),
        ({"prompt": "x", "anwser": "y"}, ["'answer' is missing", "'anwser'"]),
        ({"prompt": None, "answer": "y"}, ["'prompt' is None"]),
        ({"prompt": "x", "answer": ["y"]}, ["'answer' is ['y']"]),
        ({"prompt": "x", "answer": "y", "choices": ["Y", "n"]}, ["'y'", "Y, n"]),
        ({"prompt": "x", "answer": "y", "choices": "y,n"}, ["'y,n'", "JSON list"]),
        ({"prompt": "x", "answer": "y", "choices": ["y"]}, ["two or more"]),
        ({"prompt": "x", "answer": "y", "choices": ["y", None]}, ["'choices[1]' is None"]),
        ({"prompt": "x", "answer": "y", "choices": ["y", "y"]}, ["the same answer twice"]),
        ({"prompt": "x", "answer": "y", "group": ["g"]}, ["'group' is ['g']"]),
    ],
)
def test_bad_rows_name_line_and_field(write, row, words):
    with pytest.raises(InputError) as error:
        TASK.load(write("b.jsonl", [{"prompt": "fine", "answer": "yes"}, row]))
    assert all(word in str(error.value) for word in ["b.jsonl line 2", *words]), str(error.value)


def test_unknown_fields_name_the_nearest(write):
    with pytest.raises(InputError, match=r"question, promt, answer.*did you mean 'prompt'"):
        TASK.load(write("b.jsonl", [{"question": "x", "promt": "x", "answer": "y"}]))


def test_a_file_is_needed():
    with pytest.raises(InputError, match="give your file"):
        TASK.load()
