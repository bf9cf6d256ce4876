from __future__ import annotations

from search.cuts.level import Level
from search.cuts.rules import RULES
from search.ladder import Ladder


def levels(*texts: str) -> list[str]:
    return list(map(str, Ladder.of([Level.parse(text) for text in texts]).steps))


def test_a_family_goes_from_the_mildest_to_the_harshest() -> None:
    assert levels("0.1", "0.9", "rank:3", "0.5", "rank:8") == [
        "0.9",
        "0.5",
        "0.1",
        "rank:8",
        "rank:3",
    ]
    # A threshold that is multiplied by more leaves fewer singular values above it.
    for rule in RULES[3:]:
        assert levels(f"{rule}:2", f"{rule}:0.5", rule) == [f"{rule}:0.5", f"{rule}:1", f"{rule}:2"]
