"""A composition near a known one that has no record yet."""

from __future__ import annotations

import random
from collections.abc import Sequence

from search.cuts.composition import Composition
from search.space import Choice, Space
from search.strategies.base import History

MAX_DRAWS = 20_000
"""Draws after which a space counts as exhausted."""

BUDGET_DRAWS = 1_000
"""The same of a budget, where a draw costs a projection, and few can be drawn twice."""


def unseen(
    space: Space,
    history: History,
    seed: int,
    near: Sequence[Choice] = (),
    keep: float = 0.9,
) -> Composition | None:
    """A new composition near given choices, farther out at every attempt; None if none is found.

    Drawn from the seed and the number of the next trial, so a resumed study draws the same.
    """
    for attempt in range(MAX_DRAWS if space.budget is None else BUDGET_DRAWS):
        rng = random.Random(f"{seed}/{len(history)}/{attempt}")  # noqa: S311  # reproducible
        drawn = space.cut(space.draw(rng, near, max(0.0, keep - attempt / 100)))
        if history.is_new(drawn):
            return drawn
    return None
