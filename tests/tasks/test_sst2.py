import math

import pytest

from tasks.answers import log_softmax
from tasks.base import Choose, Chosen, Classified, Classify, Completed
from tasks.errors import InputError
from tasks.sst2 import Sst2

TSV = 'a "fine film\t1\n one long string of cliches \t0\n'
TASK = Sst2()


@pytest.fixture
def examples(write):
    return TASK.load(write("dev.tsv", TSV))


def test_reads_a_table_without_header(examples):
    assert [(e.prompt, e.answer, e.label) for e in examples] == [
        ('a "fine film', "positive", 1),
        ("one long string of cliches", "negative", 0),
    ]


def test_other_files_of_the_same_sentences_give_the_same_ids(write, examples):
    rows = [
        {"text": "one long string of cliches", "label": "negative"},
        {"sentence": 'a "fine film', "label": 1, "idx": 7},
    ]
    assert {e.id for e in TASK.load(write("dev.jsonl", rows))} == {e.id for e in examples}


def test_requests(examples):
    assert TASK.request(examples[0], "classifier") == Classify('a "fine film')
    assert TASK.request(examples[0], "causal") == Choose(
        'Review: a "fine film\nSentiment:', (" negative", " positive")
    )


@pytest.mark.parametrize(
    ("labels", "values", "prediction"),
    [
        (("NEGATIVE", "POSITIVE"), (0.3, 0.7), "positive"),
        (("POSITIVE", "NEGATIVE"), (0.7, 0.3), "positive"),
        (("POS", "NEG"), (0.7, 0.3), "positive"),
        (("LABEL_0", "LABEL_1"), (0.3, 0.7), "positive"),
        (("negative", "neutral", "positive"), (0.1, 0.2, 0.7), "positive"),
        (("negative", "neutral", "positive"), (0.1, 0.2 + 0.6, 0.1), "neutral"),
    ],
)
def test_labels_are_matched_by_name_then_by_place(examples, labels, values, prediction):
    reply = Classified(tuple(map(math.log, values)), labels)
    outcome = TASK.outcome(examples[0], reply)
    assert outcome.prediction == prediction
    assert outcome.score == float(prediction == "positive")
    right = 0.1 if prediction == "neutral" else 0.7
    assert outcome.log_probability == pytest.approx(math.log(right))


def test_foreign_labels_are_refused(examples):
    reply = Classified((-1.0, -1.0, -1.0), ("joy", "anger", "fear"))
    with pytest.raises(InputError, match="joy, anger, fear"):
        TASK.outcome(examples[0], reply)


def test_a_choice_is_normalised(examples):
    outcome = TASK.outcome(examples[1], Chosen((-3.0, -4.0), (1, 1)))
    assert (outcome.score, outcome.prediction) == (1.0, "negative")
    assert outcome.log_probability == pytest.approx(-math.log(1 + math.exp(-1)))
    sure = 1 / (1 + math.exp(-1))
    assert outcome.confidence == pytest.approx(sure)
    assert outcome.brier == pytest.approx(2 * (1 - sure) ** 2)
    assert (outcome.tokens, outcome.rank) == (1, None)


def test_log_softmax_of_impossible_choices():
    assert log_softmax((-math.inf, -math.inf)) == (-math.inf, -math.inf)
    assert log_softmax((-math.inf, -800.0)) == (-math.inf, 0.0)


def test_another_kind_of_reply_is_a_fault_of_the_caller(examples):
    with pytest.raises(TypeError, match="Completed"):
        TASK.outcome(examples[0], Completed(-1.0, True, 0, "x"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"sentence": "x", "label": 2}, ["b.jsonl line 1", "'2'", "0 (negative)"]),
        ({"sentence": " ", "label": 1}, ["line 1", "'sentence'", "' '"]),
        ({"sentense": "x", "label": 1}, ["'sentence' is missing", "'sentense'"]),
        ({"sentence": "x"}, ["'label' is missing"]),
    ],
)
def test_bad_rows(write, row, words):
    with pytest.raises(InputError) as error:
        TASK.load(write("b.jsonl", [row]))
    assert all(word in str(error.value) for word in words), str(error.value)
