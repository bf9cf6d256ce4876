"""The space of compositions: which matrices, alone or as groups, at which levels."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from search.budget import Budget
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import GROUPS, MatrixRef
from search.cuts.rules import RankRule
from search.ladder import Ladder
from search.sections import SpaceConfig
from tasks.errors import InputError, nearest

if TYPE_CHECKING:
    from search.weights.matrices import Matrix


@dataclass(frozen=True)
class Site:
    """What one choice of a level cuts: a matrix, or a group of them at the same level."""

    name: str
    matrices: tuple[MatrixRef, ...]

    @property
    def depth(self) -> int:
        """The last layer that it cuts."""
        return max(ref.layer for ref in self.matrices)

    def cut(self, level: Level) -> tuple[Intervention, ...]:
        """The interventions of cutting each matrix to `level`."""
        return tuple(Intervention(ref, level) for ref in self.matrices)


Choice = tuple[Site, Level]
"""A site and the level to which it is cut."""


def overlap(site: Site, others: Iterable[Choice]) -> bool:
    """Whether a matrix of `site` is cut by one of `others`."""
    return any(ref in other.matrices for other, _ in others for ref in site.matrices)


def choose_types(
    names: Sequence[str], available: Sequence[str], said: str = "space.matrices"
) -> list[str]:
    """Expand groups and check types against what the model has.

    `said`: where the names were written. Raises InputError.
    """
    chosen: list[str] = []
    for name in names:
        members = [t for t in GROUPS.get(name, (name,)) if t in available or name not in GROUPS]
        for member in members:
            if member not in available:
                raise InputError(
                    f"{said} contains {member!r}, which the model does not have; it has "
                    f"{', '.join(available)}{nearest(member, available)}"
                )
        chosen += [m for m in members if m not in chosen]
    return chosen


def choose_layers(layers: str | Sequence[int | str], available: Collection[int]) -> list[int]:
    """Expand ``all``, numbers and ranges such as ``20-27``. Raises InputError."""
    if layers == "all":
        return list(available)
    chosen: set[int] = set()
    for item in layers:
        first, _, last = str(item).partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(
                f"space.layers contains {item!r}; expected a number or a range as '20-27'"
            )
        wanted = range(int(first), int(last or first) + 1)
        absent = [layer for layer in wanted if layer not in available]
        if absent or not wanted:
            raise InputError(
                f"space.layers contains {item!r}, but the model has layers "
                f"{min(available)} to {max(available)}"
            )
        chosen.update(wanted)
    return sorted(chosen)


def choose_group(name: str, chosen: Sequence[MatrixRef]) -> list[Site]:
    """The sites that an entry of ``space.groups`` means, of `chosen` matrices. Raises InputError.

    ``mlp``, ``attn`` or ``all``: one for each layer. ``LAYERS.TYPE``, where LAYERS is a number, a
    range or ``*`` and TYPE may be a group: one, across these layers.
    """
    layers, point, kind = name.rpartition(".")
    types = GROUPS.get(kind, (kind,))
    wanted = [ref for ref in chosen if ref.type in types]
    found: dict[str, list[MatrixRef]] = {}
    for ref in wanted:
        if point:
            if layers != "*" and ref.layer not in choose_layers(
                [layers], {r.layer for r in chosen}
            ):
                continue
            found.setdefault(name, []).append(ref)
        elif kind in GROUPS:
            place = f"{ref.stack}." * bool(ref.stack) + f"{ref.layer}." + "cross." * ref.cross
            found.setdefault(place + kind, []).append(ref)
    sites = [Site(site, tuple(refs)) for site, refs in found.items() if len(refs) > 1]
    if not sites:
        raise InputError(
            f"space.groups contains {name!r}, which matches fewer than two matrices of the space; "
            f"expected {', '.join(GROUPS)} or layers and a type such as '20-27.fc_in' or '*.fc_out'"
        )
    return sites


@dataclass(frozen=True)
class Space:
    """Compositions of up to `max_interventions` choices at the given `ladder`.

    A choice cuts one of `matrices` or one of `groups`, whose matrices share their level; without
    `singles` groups alone. With a `budget` a composition is one of its allocations over all
    matrices, and the ladder says the kinds of cut alone.
    """

    matrices: tuple[MatrixRef, ...]
    ladder: Ladder
    max_interventions: int
    groups: tuple[Site, ...] = ()
    singles: bool = True
    budget: Budget | None = None

    @staticmethod
    def build(config: SpaceConfig, matrices: Sequence[Matrix]) -> Space:
        """Lay the configuration over the matrices that a model has. Raises InputError."""
        pool = [matrix.ref for matrix in matrices if matrix.searchable]
        if not pool:
            raise InputError("the model has no weight matrix that can be searched")
        outside = {str(matrix.ref): matrix for matrix in matrices if matrix.ref.is_outside}
        named = [outside[name].ref for name in dict.fromkeys(config.matrices) if name in outside]
        for matrix in (outside[str(ref)] for ref in named):
            if matrix.shared:
                raise InputError(
                    f"space.matrices contains {str(matrix.ref)!r}, which cannot be cut alone: "
                    f"{matrix.parameter} is {matrix.shared}"
                )
        others = [name for name in config.matrices if name not in outside]
        types = choose_types(others, list(dict.fromkeys(ref.type for ref in pool)))
        layers = choose_layers(config.layers, sorted({ref.layer for ref in pool}))
        inside = [ref for ref in pool if ref.type in types and ref.layer in layers]
        chosen = (*inside, *named)
        if not chosen:
            raise InputError(
                f"space is empty: no matrix of types {', '.join(types)} in layers {config.layers}"
            )
        if config.budget is not None:
            shapes = {matrix.ref: matrix.shape for matrix in matrices}
            own = [shapes[ref] for ref in chosen]
            return Space.within(Budget.build(config.budget, chosen, own))
        groups = [site for name in config.groups for site in choose_group(name, chosen)]
        space = Space(
            chosen, Ladder.read(config), config.max_interventions, tuple(groups), config.singles
        )
        if config.max_interventions > len(space.sites):
            what = "choices" if config.groups else "matrices"
            raise InputError(
                f"space.max_interventions is {config.max_interventions}, but the space has only "
                f"{len(space.sites)} {what}"
            )
        return space

    @staticmethod
    def within(budget: Budget) -> Space:
        """The allocations of a budget."""
        ladder = Ladder.of([Level(RankRule("rank", 1.0), kind) for kind in budget.kinds])
        return Space(budget.refs, ladder, len(budget.refs), budget=budget)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, those of a family together and the mildest first; nine of a range."""
        return self.ladder.steps

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Everything that one choice may cut: the single matrices, then the groups."""
        alone = tuple(Site(str(ref), (ref,)) for ref in self.matrices) if self.singles else ()
        return alone + self.groups

    @cached_property
    def overlapping(self) -> bool:
        """Whether a matrix is in more than one site, so that a cut has several spellings."""
        return sum(len(site.matrices) for site in self.sites) > len(
            {ref for site in self.sites for ref in site.matrices}
        )

    def size(self, max_ranks: Mapping[MatrixRef, int]) -> int | float:
        """How many different effects the space holds; infinite where that is not counted.

        Elementary symmetric polynomials of the numbers of distinct effects per site. Not counted
        for a budget, a range of rho, rules that read a spectrum, or overlapping sites.
        """
        ladder = self.ladder
        if self.budget or ladder.is_range or ladder.needs_spectra or self.overlapping:
            return math.inf
        ways = [1] + [0] * self.max_interventions  # ways[k]: choices of exactly k sites
        for site in self.sites:
            found = {
                tuple(level.made_by.effect(level.rule, max_ranks[ref]) for ref in site.matrices)
                for level in self.levels
            }
            found.discard(("",) * len(site.matrices))
            for k in range(self.max_interventions, 0, -1):
                ways[k] += ways[k - 1] * len(found)
        return sum(ways[1:])

    def cut(self, choices: Iterable[Choice]) -> Composition:
        """The composition of choices. A matrix chosen twice is cut once, as first chosen."""
        cut: dict[MatrixRef, Intervention] = {}
        for site, level in choices:
            if not any(ref in cut for ref in site.matrices):
                cut.update((i.matrix, i) for i in site.cut(level))
        return Composition(tuple(cut.values()))

    def choices(self, composition: Composition) -> list[Choice] | None:
        """The choices that make a composition, large groups first; None if it is not of the space.

        Nothing is said of their number, which may be above `max_interventions`.
        """
        if self.budget is not None:
            if self.budget.read(composition) is None:
                return None
            return [(Site(str(i.matrix), (i.matrix,)), i.level) for i in composition.interventions]
        left: dict[MatrixRef, Level] = {}
        for i in composition.interventions:
            level = self.ladder.find(i.level)
            if level is None:
                return None
            left[i.matrix] = level
        found: list[Choice] = []
        places = {place for ref in left for place in self._places.get(ref, ())}
        for site in (self._by_size[place] for place in sorted(places)):
            levels = {left.get(ref) for ref in site.matrices}
            if len(levels) == 1 and (level := levels.pop()) is not None:
                found.append((site, level))
                for ref in site.matrices:
                    del left[ref]
            if not left:
                return found
        return None

    @cached_property
    def _by_size(self) -> tuple[Site, ...]:
        return tuple(sorted(self.sites, key=lambda site: -len(site.matrices)))

    @cached_property
    def _places(self) -> dict[MatrixRef, list[int]]:
        """By matrix: where the sites that cut it stand in `_by_size`."""
        found: dict[MatrixRef, list[int]] = {}
        for place, site in enumerate(self._by_size):
            for ref in site.matrices:
                found.setdefault(ref, []).append(place)
        return found

    def draw(
        self, rng: random.Random, near: Sequence[Choice] = (), keep: float = 0.0
    ) -> list[Choice]:
        """A seeded draw near given choices: each part of them stays with probability `keep`.

        What does not stay is uniform: the number of choices, then each one's site and level. With a
        budget: shares of every matrix, uniform, or those given and moved by about 1 - `keep`.
        """
        if self.budget is not None:
            return self._allocated(self.budget, rng, near, keep)

        def stays() -> bool:
            return rng.random() < keep

        count = len(near) if near and stays() else rng.randint(1, self.max_interventions)
        found: list[Choice] = []
        for place in range(count):
            known = near[place] if place < len(near) else None
            site = known[0] if known and stays() else rng.choice(self.sites)
            if overlap(site, found):
                continue
            found.append((site, known[1] if known and stays() else self.ladder.draw(rng)))
        return found

    def _allocated(
        self, budget: Budget, rng: random.Random, near: Sequence[Choice], keep: float
    ) -> list[Choice]:
        known = budget.read(self.cut(near)) if near else None
        kept = rng.choice(budget.kept) if known is None else known.kept
        kind = rng.choice(budget.kinds) if known is None else known.kind
        steps = budget.draw(rng, kept, None if known is None else known.steps, (1 - keep) / 4)
        return self.choices(budget.composition(steps, kind)) or []
