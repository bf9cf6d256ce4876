"""The levels of a space: a list of them, or a continuous range of rho."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from search.cuts.level import PLAIN, Level
from search.cuts.rules import RankRule
from search.sections import RhoRange, SpaceConfig

STEPS = 9
"""Levels that stand for a range of rho where a list is needed."""

FINER = 16
"""Steps that a range of rho is divided into where its neighbours are asked for."""


@dataclass(frozen=True)
class Ladder:
    """The levels that a choice may take.

    `steps`: levels by family (kind and rule) in the order given, and in a family the mildest first.
    With `low` and `high` set, any rho between them is a level, drawn log-uniformly, and the steps
    stand for it.
    """

    steps: tuple[Level, ...]
    low: float = 0.0
    high: float = 0.0

    @staticmethod
    def of(levels: Sequence[Level]) -> Ladder:
        """A ladder of these levels, each once."""
        families: dict[tuple[str, str], dict[Level, None]] = {}
        for level in levels:
            families.setdefault(level.family, {})[level] = None
        return Ladder(
            tuple(
                level
                for family in families.values()
                for level in sorted(family, key=lambda one: -one.rule.mildness)
            )
        )

    @staticmethod
    def of_rho(values: Sequence[float], kind: str = PLAIN) -> Ladder:
        """A ladder of fractions of rank."""
        return Ladder.of(Level.of_rho(values, kind))

    @staticmethod
    def between(low: float, high: float, kind: str = PLAIN) -> Ladder:
        """All rho from `low` to `high`, both above 0."""
        inner = [low * (high / low) ** (step / (STEPS - 1)) for step in range(STEPS - 2, 0, -1)]
        return Ladder(Level.of_rho((high, *inner, low), kind), low, high)

    @staticmethod
    def read(config: SpaceConfig) -> Ladder:
        """The levels that a configuration's space has."""
        if isinstance(config.rho, RhoRange):
            return Ladder.between(config.rho.low, config.rho.high)
        if config.rho is not None:
            return Ladder.of_rho(config.rho)
        return Ladder.of([Level.parse(text) for text in config.levels or ()])

    def as_laser(self, model_type: str) -> Ladder:
        """The same levels as LASER's own code makes them. Raises InputError if it cannot."""
        steps = [level.as_laser(model_type) for level in self.steps]
        return replace(self, steps=tuple(steps))

    @property
    def is_range(self) -> bool:
        """Whether levels between the steps are of the ladder too."""
        return self.high > 0

    @property
    def needs_spectra(self) -> bool:
        """Whether a level's rank depends on the singular values of the matrix."""
        return any(level.rule.needs_spectrum for level in self.steps)

    @cached_property
    def families(self) -> tuple[tuple[Level, ...], ...]:
        """The steps by kind and rule, the mildest first."""
        found: dict[tuple[str, str], list[Level]] = {}
        for level in self.steps:
            found.setdefault(level.family, []).append(level)
        return tuple(map(tuple, found.values()))

    def at(self, rho: float) -> Level:
        """The level of a rho of the range."""
        return Level(RankRule("rho", rho), self.steps[0].kind)

    def find(self, level: Level) -> Level | None:
        """The level of the ladder that cuts as `level` does whatever the matrix; None if none."""
        if self.is_range:
            inside = self.low <= level.rule.value <= self.high
            return level if inside and level.family == self.steps[0].family else None
        if level in self._known:
            return level
        if level.keeps_nothing:
            return next((step for step in self.steps if step.keeps_nothing), None)
        return None

    @cached_property
    def _known(self) -> frozenset[Level]:
        return frozenset(self.steps)

    def next_to(self, level: Level) -> list[Level]:
        """The levels one step away: of its family the smaller first, then one of each other."""
        if self.is_range:
            step, rho = (self.high / self.low) ** (1 / FINER), level.rule.value
            return [
                self.at(min(self.high, max(self.low, value))) for value in (rho / step, rho * step)
            ]
        near, others = [], []
        for family in self.families:
            rising = family[::-1]
            if level in rising:
                place = rising.index(level)
                near = [rising[n] for n in (place - 1, place + 1) if 0 <= n < len(rising)]
                share = place / max(1, len(rising) - 1)
        for family in self.families:
            if level not in family:
                others.append(family[::-1][round(share * (len(family) - 1))])
        return near + others

    def draw(self, rng: random.Random) -> Level:
        """A uniform level; of a range log-uniform in rho."""
        if not self.is_range:
            return rng.choice(self.steps)
        rho = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return self.at(min(self.high, max(self.low, rho)))
