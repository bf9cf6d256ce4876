import logging

import pytest

from tasks.base import Choose, Chosen
from tasks.errors import InputError
from tasks.fever import Fever

TASK = Fever()
ROWS = [
    {"id": 1, "label": "SUPPORTS", "claim": "Rome is in Italy.", "evidence_wiki_url": "Rome"},
    {"id": 1, "label": "SUPPORTS", "claim": "Rome is in Italy.", "evidence_wiki_url": "Italy"},
    {"id": 2, "label": "REFUTES", "claim": "Oslo is in Peru"},
    {"id": 3, "label": "SUPPORTS", "claim": "Snow is warm."},
    {"id": 4, "label": "REFUTES", "claim": "Snow is warm."},
    {"id": 5, "label": "NOT ENOUGH INFO", "claim": "Ann likes tea."},
]


def test_repeated_claims_are_one_and_conflicting_ones_none(write, caplog):
    with caplog.at_level(logging.WARNING):
        examples = TASK.load(write("fever.jsonl", ROWS))
    assert [(e.prompt, e.answer, e.label) for e in examples] == [
        ("Rome is in Italy.", "true", 1),
        ("Oslo is in Peru", "false", 0),
    ]
    assert "1 of 4 claims have conflicting labels" in caplog.text


def test_labels_may_be_numbers(write):
    rows = [{"claim": "a", "label": 1}, {"claim": "b", "label": 0}]
    assert [e.answer for e in TASK.load(write("fever.jsonl", rows))] == ["true", "false"]


def test_requests_end_the_claim_once(write):
    first, second = TASK.load(write("fever.jsonl", ROWS))
    question = " Is this claim true or false? The claim is"
    for example, claim in ((first, "Rome is in Italy."), (second, "Oslo is in Peru.")):
        prompt = f"Consider the following claim: {claim}{question}"
        assert TASK.request(example, "causal") == Choose(prompt, (" false", " true"))
        assert TASK.request(example, "masked") == Choose(f"{prompt} [MASK].", (" false", " true"))


def test_the_likelier_word_is_the_answer(write):
    first, second = TASK.load(write("fever.jsonl", ROWS))
    reply = Chosen((-2.0, -1.0), (1, 1))
    assert [TASK.outcome(e, reply).score for e in (first, second)] == [1.0, 0.0]
    assert TASK.outcome(second, reply).prediction == "true"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"claim": "x", "label": "SUPPORT"}], ["b.jsonl line 1", "'SUPPORT'", "'supports'"]),
        ([{"label": "SUPPORTS"}], ["'claim' is missing"]),
        ([{"claim": "x", "label": "NOT ENOUGH INFO"}], ["no claim with one label"]),
    ],
)
def test_bad_rows(write, rows, words):
    with pytest.raises(InputError) as error:
        TASK.load(write("b.jsonl", rows))
    assert all(word in str(error.value) for word in words), str(error.value)
