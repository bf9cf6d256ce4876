"""Allocations of a budget as parameters that Optuna's samplers can draw, and back."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search.space import Choice, Space
from search.strategies.encodings import Draw

SHARE = FloatDistribution(0.0, 1.0)


class Shares:
    """One share for each matrix, projected onto the budget; and the kind, where there are several.

    Every point of the cube is an allocation: all shares are raised or lowered alike until the
    budget is full (see `Budget.project`).
    """

    def __init__(self, space: Space) -> None:
        """Shares of the matrices of `space`, whose budget has one share in all."""
        if space.budget is None:
            raise ValueError("shares are those of a space with a budget")
        self._space = space
        self._budget = space.budget

    def draw(self, draw: Draw) -> list[Choice]:
        """Draw the kind and every matrix's share, and read them as choices."""
        budget = self._budget
        kind = budget.kinds[0]
        if len(budget.kinds) > 1:
            kind = str(draw("kind", self._kinds))
        wanted = [float(draw(str(ref), SHARE)) for ref in budget.refs]
        steps = budget.project(wanted, budget.kept[0])
        return self._space.choices(budget.composition(steps, kind)) or []

    def write(self, choices: list[Choice]) -> dict[str, tuple[Any, BaseDistribution]]:
        """The kind and every matrix's share."""
        found = self._budget.read(self._space.cut(choices))
        if found is None:
            raise ValueError("these choices are not an allocation of the budget")
        written: dict[str, tuple[Any, BaseDistribution]] = {}
        if len(self._budget.kinds) > 1:
            written["kind"] = (found.kind, self._kinds)
        shares = self._budget.shares(found.steps)
        return written | {
            str(ref): (share, SHARE) for ref, share in zip(self._budget.refs, shares, strict=True)
        }

    @property
    def _kinds(self) -> BaseDistribution:
        return CategoricalDistribution(self._budget.kinds)
