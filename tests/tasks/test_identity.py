import random
from dataclasses import replace

import pytest

from tasks.base import Example
from tasks.errors import InputError
from tasks.identity import Duplicates, count_duplicates, identify

DRAFTS = [
    Example("", "", "q1", "yes", columns={"hard": 1}),
    Example("", "", "q1", "yes", columns={"hard": 2}),
    Example("", "", "q1", "no"),
    Example("", "", "q2", "yes"),
    Example("", "", "q2", "yes"),
    Example("", "fact", "q3", "yes"),
]


def test_ids_are_unique_and_independent_of_order():
    found = identify(DRAFTS)
    assert len({e.id for e in found}) == len(DRAFTS)
    for seed in range(5):
        mixed = random.Random(seed).sample(DRAFTS, len(DRAFTS))
        key = lambda e: e.id  # noqa: E731
        assert sorted(identify(mixed), key=key) == sorted(found, key=key)


def test_order_of_rows_is_kept():
    assert [replace(e, id="", group="") for e in identify(DRAFTS)] == [
        replace(d, group="") for d in DRAFTS
    ]


def test_ids_depend_on_content_and_not_on_further_columns():
    (one,) = identify([Example("", "", "q", "a")])
    (same,) = identify([Example("", "", "q", "a", columns={"source": "x"})])
    (other,) = identify([Example("", "", "q", "b")])
    assert one.id == same.id != other.id


def test_rows_with_one_question_share_a_group_whatever_the_answer():
    groups = [e.group for e in identify(DRAFTS)]
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]
    assert groups[5] == "fact"


def test_given_ids_must_be_unique():
    with pytest.raises(InputError, match="id 'x' is used by 2 rows"):
        identify([Example("x", "", "q1", "a"), Example("x", "", "q2", "a")])
    assert [e.id for e in identify([Example("x", "", "q1", "a"), Example("y", "", "q1", "a")])] == [
        "x",
        "y",
    ]


def test_duplicates_are_counted():
    assert count_duplicates(identify(DRAFTS)) == Duplicates(exact=2, contradictory=3)
    assert count_duplicates(identify(DRAFTS[5:])) == Duplicates(0, 0)
