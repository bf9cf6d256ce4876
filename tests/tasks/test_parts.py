"""How many questions and groups a part has, and when one group is too much of it."""

from tasks.base import Example
from tasks.parts import size_of, sizes_text


def _part(*groups: str, task: str = "") -> list[Example]:
    return [
        Example(f"{task}{n}", group, f"question {n}", "a", task=task)
        for n, group in enumerate(groups)
    ]


def test_questions_and_groups_are_counted() -> None:
    parts = {"validation": _part("a", "a", "b"), "confirm": [], "test": _part("c")}
    sizes = [size_of(name, examples) for name, examples in parts.items()]
    assert [(s.questions, s.groups) for s in sizes] == [(3, 2), (0, 0), (1, 1)]
    assert sizes_text(sizes) == (
        "questions: validation 3 in 2 groups, test 1 in 1 group"  # no confirm: none was asked for
    )
    assert sizes_text([size_of("all", _part("a", "b"))]) == "questions: 2 in 2 groups"


def test_a_group_of_more_than_a_fifth_is_warned_of() -> None:
    fifth = _part(*["a"] * 2, *"bcdefghi")
    assert size_of("test", fifth).warnings == ()
    more = _part(*["nan"] * 34, *"abc")
    (said,) = size_of("validation", more).warnings
    assert said.startswith(
        "the group 'nan' (such as 'question 0') holds 34 of 37 validation questions, 92%"
    )
    assert "group" in said.split(";")[-1]


def test_few_questions_of_their_own_are_no_large_groups() -> None:
    assert size_of("test", _part(*"abcd")).warnings == ()


def test_each_of_several_tasks_is_looked_at_by_itself() -> None:
    spread = _part(*[f"g{n}" for n in range(90)], task="wide")
    lumped = _part(*["x"] * 4, *"bcdef", task="narrow")
    (said,) = size_of("test", [*spread, *lumped]).warnings
    assert "holds 4 of 9 test questions of narrow, 44%" in said
