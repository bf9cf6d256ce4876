"""Matches of answers in text, against other computations."""

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.matching import contains, f1, is_decided, is_exact, normalise

WORDS = st.lists(
    st.sampled_from(
        ["the", "Paris", "a", "in", "paris,", "An", "know", "no", "U.S.", "é", "12", "-"]
    ),
    max_size=7,
).map(" ".join)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        (" Paris, the capital", "Paris", True),
        ("it is PARIS", "paris", True),
        ("in New\n York City", "New York", True),
        ("I know", "no", False),
        ("no.", "no", True),
        ("Parisian", "Paris", False),
        ("the U.S. Navy", "U.S.", True),
        ("(1984)", "1984", True),
        ("19845", "1984", False),
        ("C++ and C", "C++", True),
        ("anything", " ", False),
        ("Straße", "STRASSE", True),
    ],
)
def test_an_answer_is_found_as_whole_words(text, answer, found):
    assert contains(text, answer) is found


@given(before=WORDS, answer=WORDS, after=WORDS, more=st.text(max_size=6))
def test_what_is_decided_stays(before, answer, after, more):
    text = " ".join([before, answer, after])
    assume(is_decided(text, answer))  # hypothesis says when that is seldom
    assert contains(text, answer)
    assert contains(text + more, answer)


@given(text=WORDS, answer=WORDS)
def test_a_found_answer_is_decided_once_a_word_follows(text, answer):
    assert is_decided(text + " . x", answer) == contains(text + " . x", answer)


def test_the_end_of_a_text_decides_nothing():
    assert contains("in Paris", "Paris")
    assert not is_decided("in Paris", "Paris")
    assert not is_decided("in Paris\N{REPLACEMENT CHARACTER}", "Paris")
    assert is_decided("in Paris,", "Paris")


def _hotpot_words(text):
    """The normalisation of HotpotQA's evaluation script, written anew."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


@given(text=WORDS, answer=WORDS)
def test_f1_against_precision_and_recall_by_hand(text, answer):
    said, right = _hotpot_words(text), _hotpot_words(answer)
    assert normalise(text).split() == said
    left, shared = list(right), 0
    for word in said:
        if word in left:
            left.remove(word)
            shared += 1
    if not said or not right:
        expected = float(said == right)
    elif not shared:
        expected = 0.0
    else:
        precision, recall = shared / len(said), shared / len(right)
        expected = 2 * precision * recall / (precision + recall)
    assert f1(text, answer) == pytest.approx(expected, abs=1e-12)
    assert is_exact(text, answer) == (said == right)


def test_f1_of_a_right_answer_is_one_and_not_a_half():
    """The original code divides by max(1, precision + recall)."""
    assert f1(" The Eiffel Tower.", "Eiffel tower") == 1.0
    assert f1("Eiffel", "Eiffel Tower") == pytest.approx(2 / 3)
