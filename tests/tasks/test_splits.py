import logging
from dataclasses import replace

import pytest

from tasks.datasets import split_by_group
from tasks.errors import InputError
from tasks.splits import split_examples, split_tasks


@pytest.fixture
def examples(example):
    return [example(n, group=f"g{n // 2}") for n in range(11)]


def test_the_papers_split_is_the_first_fifth_of_the_file(examples):
    split = split_examples(examples, 0.2, protocol="paper")
    assert split.validation == examples[:2]
    assert split.test == examples[2:]
    backwards = split_examples(examples[::-1], 0.2, protocol="paper")
    assert backwards.validation == examples[:-3:-1]


def test_too_few_examples_for_the_papers_split(examples):
    with pytest.raises(InputError, match="4 examples cannot be split by protocol 'paper'"):
        split_examples(examples[:4], 0.2, protocol="paper")


@pytest.mark.parametrize("protocol", ["auto", "groups"])
def test_data_without_parts_is_split_by_group(examples, protocol):
    assert split_examples(examples, 0.4, 7, protocol) == split_by_group(examples, 0.4, 7)


def _parts(examples, *parts):
    return [replace(e, part=p) for e, p in zip(examples, parts, strict=True)]


def test_the_datas_own_parts_are_kept(examples, caplog):
    """e0 shares its group with e1, which is for test: the search must not see it."""
    own = _parts(examples[:5], "validation", "test", "validation", "validation", "test")
    with caplog.at_level(logging.WARNING):
        split = split_examples(own, 0.2)
    assert [e.id for e in split.validation] == ["e2", "e3"]
    assert [e.id for e in split.test] == ["e1", "e4"]
    assert "1 of 3 validation examples also occur in test" in caplog.text
    grouped = split_examples(own, 0.4, 3, "groups")
    assert grouped == split_by_group(own, 0.4, 3)


def test_one_part_alone_is_no_split(examples):
    own = _parts(examples[:6], *["test"] * 6)
    assert split_examples(own, 0.4) == split_by_group(own, 0.4)


def test_nothing_left_to_validate_on(examples):
    with pytest.raises(InputError, match="every validation example"):
        split_examples(_parts(examples[:2], "validation", "test"))


def test_each_task_is_split_by_itself_and_one_task_as_ever(example):
    first = [replace(example(n, group=f"a{n}"), task="a") for n in range(10)]
    second = [replace(example(n, group=f"b{n}"), id=f"b/{n}", task="b") for n in range(20)]
    split = split_tasks([*first, *second], 0.3, 5)
    apart = [split_examples(own, 0.3, 5) for own in (first, second)]
    assert split.validation == apart[0].validation + apart[1].validation
    assert split.test == apart[0].test + apart[1].test
    assert split_tasks(first, 0.3, 5) == apart[0]


def test_a_text_asked_in_two_tasks_never_crosses_the_split(example, caplog):
    """Of unequal sizes, so that the tasks put the boundary at different groups."""
    first = [replace(example(n, group=f"g{n}"), task="a") for n in range(40)]
    second = [replace(example(n, group=f"g{n // 4}"), id=f"b/{n}", task="b") for n in range(60)]
    with caplog.at_level(logging.WARNING):
        split = split_tasks([*first, *second], 0.4)
    groups = [{e.group for e in side} for side in (split.validation, split.test)]
    assert not groups[0] & groups[1]
    assert {e.task for e in split.validation} == {e.task for e in split.test} == {"a", "b"}
    assert "are excluded" in caplog.text
    whole = sum(len(split_examples(own, 0.4).test) for own in (first, second))
    assert len(split.test) == whole, "test is what each task says"


def test_tasks_that_leave_no_validation_are_refused(example):
    first = [replace(example(n, group=f"g{n}"), task="a", part="test") for n in range(4)]
    first += [replace(example(n, group=f"x{n}"), task="a", part="validation") for n in range(4)]
    second = [replace(e, id=f"b/{e.id}", task="b") for e in first]
    flip = {"test": "validation", "validation": "test"}
    second = [replace(e, part=flip[e.part]) for e in second]
    with pytest.raises(InputError, match="every validation example of task 'a'"):
        split_tasks([*first, *second])
