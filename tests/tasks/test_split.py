import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import Example
from tasks.datasets import split_by_group
from tasks.errors import InputError


def _examples(sizes):
    return [
        Example(f"{group}-{number}", f"g{group}", f"q{group} {number}", "a")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=3, max_size=40),
    validation=st.floats(0.05, 0.6),
    seed=st.integers(0, 9),
    shuffle=st.integers(0, 99),
)
def test_groups_stay_whole_and_file_order_does_not_matter(sizes, validation, seed, shuffle):
    examples = _examples(sizes)
    try:
        split = split_by_group(examples, validation, seed)
    except InputError:
        # All go to validation only where all but one group may be too few for it.
        assert sum(sizes) - max(sizes) < validation * sum(sizes)
        return
    left, right = ({e.group for e in side} for side in (split.validation, split.test))
    assert not left & right
    assert sorted(e.id for e in split.validation + split.test) == sorted(e.id for e in examples)
    taken = len(split.validation)
    last = Counter(e.group for e in split.validation)[split.validation[-1].group]
    assert taken >= validation * len(examples) - 1e-6
    assert taken - last < validation * len(examples)
    mixed = random.Random(shuffle).sample(examples, len(examples))
    assert split_by_group(mixed, validation, seed) == split


def test_the_seed_decides():
    examples = _examples([1] * 100)
    chosen = [frozenset(e.id for e in split_by_group(examples, 0.2, s).validation) for s in (0, 1)]
    assert chosen[0] != chosen[1]
    assert [len(c) for c in chosen] == [20, 20]


def test_a_group_keeps_its_side_when_others_join():
    """Ranks are by hash, so new groups only move the line, they do not shuffle the old ones."""
    before = split_by_group(_examples([1] * 100), 0.5)
    after = split_by_group(_examples([1] * 110), 0.5)
    moved = {e.id for e in before.validation} ^ {
        e.id for e in after.validation if int(e.group[1:]) < 100
    }
    assert len(moved) <= 10


def test_binary_rounding_asks_for_no_further_example():
    assert len(split_by_group(_examples([1] * 30), 0.1).validation) == 3


@pytest.mark.parametrize("validation", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_is_refused(validation):
    with pytest.raises(InputError, match="not a fraction"):
        split_by_group(_examples([1] * 10), validation)


@pytest.mark.parametrize("sizes", [[], [3], [1]])
def test_an_empty_side_is_refused(sizes):
    with pytest.raises(InputError, match="one side is empty"):
        split_by_group(_examples(sizes), 0.5)
