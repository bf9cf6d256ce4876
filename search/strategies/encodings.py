"""Compositions as parameters that Optuna's samplers can draw, and back."""

from __future__ import annotations

import math
import random
from functools import cached_property
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.cuts.level import Level
from search.space import Choice, Site, Space, overlap


class Draw(Protocol):
    """What gives a parameter its value: an Optuna trial, live or fixed."""

    def __call__(self, name: str, distribution: BaseDistribution) -> Any:
        """Draw one parameter."""
        ...


class Encoding(Protocol):
    """One way to write the choices of a composition as parameters."""

    def draw(self, draw: Draw) -> list[Choice]:
        """Draw parameters and read them as choices."""
        ...

    def write(self, choices: list[Choice]) -> dict[str, tuple[Any, BaseDistribution]]:
        """The parameters that `draw` reads as `choices`, each with what it is drawn from."""
        ...


class Slots:
    """How many choices there are, and for each a site and a level; slots beyond do not exist.

    Conditional parameters, since padding them measurably misleads TPE. The sites are a layer and a
    type where every layer has every type, else a place in a list. The level is a place in its
    family, by a family where there are several.
    """

    def __init__(self, space: Space) -> None:
        """Slots of `space`."""
        self._space = space

    def draw(self, draw: Draw) -> list[Choice]:
        """Draw the number of choices, then each one's site and level."""
        count = draw("interventions", self._counts)
        return [(self._site(draw, slot), self._level(draw, slot)) for slot in range(1, count + 1)]

    def write(self, choices: list[Choice]) -> dict[str, tuple[Any, BaseDistribution]]:
        """The parameters of `choices`, in their order."""
        written: dict[str, tuple[Any, BaseDistribution]] = {
            "interventions": (len(choices), self._counts)
        }
        for slot, (site, level) in enumerate(choices, 1):
            for name, value, distribution in [*self._place(site), *self._height(level)]:
                written[f"{name}_{slot}"] = (value, distribution)
        return written

    @cached_property
    def _counts(self) -> IntDistribution:
        return IntDistribution(1, self._space.max_interventions)

    def _level(self, draw: Draw, slot: int) -> Level:
        ladder = self._space.ladder
        if ladder.is_range:
            return ladder.at(float(draw(f"rho_{slot}", self._rhos)))
        family = self._only
        if family is None:
            family = self._families[str(draw(f"kind_{slot}", self._kinds))]
        name, distribution = self._index(family)
        return family[int(draw(f"{name}_{slot}", distribution))]

    def _height(self, level: Level) -> list[tuple[str, Any, BaseDistribution]]:
        ladder = self._space.ladder
        if ladder.is_range:
            return [("rho", level.rule.value, self._rhos)]
        label = "/".join(level.family)
        family = self._families[label]
        name, distribution = self._index(family)
        index = (name, family.index(level), distribution)
        return [index] if self._only is not None else [("kind", label, self._kinds), index]

    @cached_property
    def _rhos(self) -> BaseDistribution:
        return FloatDistribution(self._space.ladder.low, self._space.ladder.high, log=True)

    @cached_property
    def _families(self) -> dict[str, tuple[Level, ...]]:
        return {"/".join(family[0].family): family for family in self._space.ladder.families}

    @cached_property
    def _only(self) -> tuple[Level, ...] | None:
        """The family, where there is but one."""
        families = self._space.ladder.families
        return families[0] if len(families) == 1 else None

    @cached_property
    def _kinds(self) -> BaseDistribution:
        return CategoricalDistribution(list(self._families))

    def _index(self, family: tuple[Level, ...]) -> tuple[str, BaseDistribution]:
        # By index, so that the sampler sees the order and weighs the given values alike.
        label = "" if self._only is not None else f"_{'/'.join(family[0].family)}"
        return f"rho_index{label}", IntDistribution(0, len(family) - 1)

    @cached_property
    def _layers(self) -> list[int]:
        return sorted({ref.layer for ref in self._space.matrices})

    @cached_property
    def _types(self) -> list[str]:
        return list(dict.fromkeys(ref.type for ref in self._space.matrices))

    @cached_property
    def _grid(self) -> dict[tuple[int, str], Site]:
        """Sites by layer and type where that names each of them, else empty."""
        sites = self._space.sites
        found = {(s.matrices[0].layer, s.matrices[0].type): s for s in sites}
        whole = len(found) == len(sites) == len(self._layers) * len(self._types)
        return found if whole and not self._space.groups else {}

    def _site(self, draw: Draw, slot: int) -> Site:
        if not self._grid:
            return self._space.sites[int(draw(f"site_{slot}", self._all))]
        layer = int(draw(f"{self._layer_name}_{slot}", self._layer))
        if self._layer_name == "layer_index":
            layer = self._layers[layer]
        kind = str(draw(f"type_{slot}", CategoricalDistribution(self._types)))
        return self._grid[layer, kind]

    def _place(self, site: Site) -> list[tuple[str, Any, BaseDistribution]]:
        if not self._grid:
            return [("site", self._space.sites.index(site), self._all)]
        ref = site.matrices[0]
        indexed = self._layer_name == "layer_index"
        layer = self._layers.index(ref.layer) if indexed else ref.layer
        return [
            (self._layer_name, layer, self._layer),
            ("type", ref.type, CategoricalDistribution(self._types)),
        ]

    @cached_property
    def _all(self) -> IntDistribution:
        return IntDistribution(0, len(self._space.sites) - 1)

    @cached_property
    def _layer_name(self) -> str:
        first, last = self._layers[0], self._layers[-1]
        return "layer" if self._layers == list(range(first, last + 1)) else "layer_index"

    @cached_property
    def _layer(self) -> IntDistribution:
        if self._layer_name == "layer":
            return IntDistribution(self._layers[0], self._layers[-1])
        return IntDistribution(0, len(self._layers) - 1)


class Sites:
    """One ordered choice per site: the smallest level first, and "keep" at the end.

    A sampler may cut more sites than a composition has; then some of them stand, by a shuffle that
    depends on what was drawn alone.
    """

    def __init__(self, space: Space) -> None:
        """Sites of `space`."""
        self._space = space

    @cached_property
    def _levels(self) -> list[Level]:
        ladder = self._space.ladder
        if ladder.is_range:
            return []
        return [level for family in ladder.families for level in reversed(family)]

    @cached_property
    def _place(self) -> BaseDistribution:
        # A range of rho: the lower half of [0, 1] is its range, the upper half keeps.
        return IntDistribution(0, len(self._levels)) if self._levels else FloatDistribution(0, 1)

    def draw(self, draw: Draw) -> list[Choice]:
        """Draw every site's place in the order."""
        places = [(site, draw(site.name, self._place)) for site in self._space.sites]
        found = [
            (site, self._level(place))
            for site, place in places
            if place < (len(self._levels) or 0.5)
        ]
        if len(found) > self._space.max_interventions:
            seed = "/".join(f"{place:g}" for _, place in places)
            random.Random(seed).shuffle(found)  # noqa: S311  # reproducible, not secret
        chosen: list[Choice] = []
        for site, level in found:
            if len(chosen) < self._space.max_interventions and not overlap(site, chosen):
                chosen.append((site, level))
        return chosen

    def write(self, choices: list[Choice]) -> dict[str, tuple[Any, BaseDistribution]]:
        """Every site's place: its level's, or "keep"."""
        cut = {site.name: level for site, level in choices}
        keep = len(self._levels) or 1.0
        return {
            site.name: (self._at(cut[site.name]) if site.name in cut else keep, self._place)
            for site in self._space.sites
        }

    def _level(self, place: float) -> Level:
        ladder = self._space.ladder
        if not ladder.is_range:
            return self._levels[int(place)]
        rho = float(ladder.low * (ladder.high / ladder.low) ** (2 * place))
        return ladder.at(min(ladder.high, rho))

    def _at(self, level: Level) -> float:
        ladder = self._space.ladder
        if not ladder.is_range:
            return self._levels.index(level)
        whole = math.log(ladder.high / ladder.low)
        return min(0.49999, math.log(level.rule.value / ladder.low) / whole / 2)


ENCODINGS: dict[str, type[Slots] | type[Sites]] = {"slots": Slots, "sites": Sites}
