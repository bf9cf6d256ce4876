"""What Optuna's own views show of a composition: its slots, as parameters of the stored trial."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution

from search.cuts.composition import Composition
from search.space import Space
from search.strategies.encodings import Slots


class Parameters:
    """For people and dashboards; a trial is known by its composition, and no draw reads these.

    None of the allocations of a budget, which would be as many as there are matrices.
    """

    def __init__(self, space: Space) -> None:
        """Parameters over `space`."""
        self._space = space
        self._slots = Slots(space)

    def of(self, composition: Composition) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Values and distributions; none for a composition that is not of the space."""
        if self._space.budget is not None:
            return {}, {}
        choices = self._space.choices(composition)
        if choices is None or len(choices) > self._space.max_interventions:
            return {}, {}
        written = self._slots.write(choices)
        return (
            {name: value for name, (value, _) in written.items()},
            {name: distribution for name, (_, distribution) in written.items()},
        )
