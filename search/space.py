"""The space of compositions, as Optuna draws from it.

A trial says how many interventions it has and fills that many slots, each a layer, a matrix type
and a fraction of rank. Slots beyond the number do not exist (conditional parameters): padding them
measurably misleads the TPE sampler.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from search.composition import Composition, Intervention
from search.config import RhoRange, SpaceConfig
from search.weights.matrices import Matrix
from search.weights.ranks import RankRule
from search.weights.refs import GROUPS, MatrixRef
from tasks.errors import InputError, nearest

T = TypeVar("T")


class Draw(Protocol):
    """What a space asks of an Optuna trial, live or fixed."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Draw an integer in [low, high]."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Draw a float in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of `choices`."""
        ...


class NeighbourDraw:
    """A seeded draw near given parameters: each stays with probability `keep`, else is uniform.

    `params` is what was drawn. With `keep` 0 the draw is uniform.
    """

    def __init__(self, seed: int | str, near: Mapping[str, Any], keep: float) -> None:
        self._random = random.Random(seed)  # noqa: S311  # reproducible, not secret
        self._near = near
        self._keep = keep
        self.params: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Draw an integer in [low, high]."""
        return self._draw(name, lambda: self._random.randint(low, high))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Draw a float in [low, high], uniform in its logarithm if `log`."""
        a, b = (math.log(low), math.log(high)) if log else (low, high)

        def uniform() -> float:
            value = self._random.uniform(a, b)
            return min(high, max(low, math.exp(value) if log else value))

        return self._draw(name, uniform)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of `choices`."""
        return self._draw(name, lambda: self._random.choice(choices))

    def _draw(self, name: str, uniform: Callable[[], T]) -> T:
        stays = self._random.random() < self._keep and name in self._near
        value: T = self._near[name] if stays else uniform()
        self.params[name] = value
        return value


def choose_types(names: Sequence[str], available: Sequence[str]) -> list[str]:
    """Expand groups and check types against what the model has. Raises InputError."""
    chosen: list[str] = []
    for name in names:
        members = [t for t in GROUPS.get(name, (name,)) if t in available or name not in GROUPS]
        for member in members:
            if member not in available:
                raise InputError(
                    f"space.matrices names {member!r}, which the model lacks; it has "
                    f"{', '.join(available)}{nearest(member, available)}"
                )
        chosen += [m for m in members if m not in chosen]
    return chosen


def choose_layers(layers: str | Sequence[int | str], available: Sequence[int]) -> list[int]:
    """Expand ``all``, numbers and ranges such as ``20-27``. Raises InputError."""
    if layers == "all":
        return list(available)
    chosen: set[int] = set()
    for item in layers:
        first, _, last = str(item).partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(
                f"space.layers holds {item!r}; expected a number or a range as '20-27'"
            )
        wanted = range(int(first), int(last or first) + 1)
        absent = [layer for layer in wanted if layer not in available]
        if absent or not wanted:
            raise InputError(
                f"space.layers holds {item!r}, but the model has layers "
                f"{min(available)} to {max(available)}"
            )
        chosen.update(wanted)
    return sorted(chosen)


@dataclass(frozen=True)
class Space:
    """Compositions of up to `max_interventions` cuts of `matrices`, at the given `rho`."""

    matrices: tuple[MatrixRef, ...]
    rho: tuple[float, ...] | RhoRange
    max_interventions: int

    @staticmethod
    def build(config: SpaceConfig, matrices: Sequence[Matrix]) -> Space:
        """Lay the configuration over the matrices that a model has. Raises InputError."""
        pool = [matrix.ref for matrix in matrices if matrix.searchable]
        if not pool:
            raise InputError("the model has no weight matrix that can be searched")
        types = choose_types(config.matrices, list(dict.fromkeys(ref.type for ref in pool)))
        layers = choose_layers(config.layers, sorted({ref.layer for ref in pool}))
        chosen = tuple(ref for ref in pool if ref.type in types and ref.layer in layers)
        if not chosen:
            raise InputError(
                f"space is empty: no matrix of types {', '.join(types)} in layers {config.layers}"
            )
        if config.max_interventions > len(chosen):
            raise InputError(
                f"space.max_interventions is {config.max_interventions}, but the space has only "
                f"{len(chosen)} matrices"
            )
        rho = config.rho
        if not isinstance(rho, RhoRange):
            rho = sorted(set(rho), reverse=True)
        return Space(
            chosen, rho if isinstance(rho, RhoRange) else tuple(rho), config.max_interventions
        )

    @property
    def is_grid(self) -> bool:
        """Whether every chosen layer has every chosen type once, in one stack."""
        pairs = {(ref.layer, ref.type) for ref in self.matrices}
        layers = {ref.layer for ref in self.matrices}
        types = {ref.type for ref in self.matrices}
        return len(pairs) == len(self.matrices) == len(layers) * len(types)

    def size(self, max_ranks: Mapping[MatrixRef, int]) -> int | float:
        """How many different effects the space holds; infinite for a continuous rho.

        Elementary symmetric polynomials of the numbers of distinct ranks per matrix.
        """
        if isinstance(self.rho, RhoRange):
            return math.inf
        ways = [1] + [0] * self.max_interventions  # ways[k]: choices of exactly k cut matrices
        for ref in self.matrices:
            full = max_ranks[ref]
            ranks = {RankRule("rho", rho).rank(full) for rho in self.rho} - {full}
            for k in range(self.max_interventions, 0, -1):
                ways[k] += ways[k - 1] * len(ranks)
        return sum(ways[1:])

    def composition(self, trial: Draw) -> Composition:
        """Draw a composition. A matrix drawn twice is cut once, as first drawn."""
        count = trial.suggest_int("interventions", 1, self.max_interventions)
        drawn: dict[MatrixRef, Intervention] = {}
        for slot in range(1, count + 1):
            matrix = self._matrix(trial, slot)
            rule = RankRule("rho", self._rho(trial, slot))
            drawn.setdefault(matrix, Intervention(matrix, rule))
        return Composition(tuple(drawn.values()))

    def _matrix(self, trial: Draw, slot: int) -> MatrixRef:
        if not self.is_grid:
            place = trial.suggest_int(f"matrix_{slot}", 0, len(self.matrices) - 1)
            return self.matrices[place]
        layers = sorted({ref.layer for ref in self.matrices})
        types = list(dict.fromkeys(ref.type for ref in self.matrices))
        if layers == list(range(layers[0], layers[-1] + 1)):
            layer = trial.suggest_int(f"layer_{slot}", layers[0], layers[-1])
        else:
            layer = layers[trial.suggest_int(f"layer_index_{slot}", 0, len(layers) - 1)]
        kind = trial.suggest_categorical(f"type_{slot}", types)
        return next(ref for ref in self.matrices if ref.layer == layer and ref.type == kind)

    def _rho(self, trial: Draw, slot: int) -> float:
        if isinstance(self.rho, RhoRange):
            return trial.suggest_float(f"rho_{slot}", self.rho.low, self.rho.high, log=True)
        # By index, so that the sampler sees the order and weighs the given values alike.
        return self.rho[trial.suggest_int(f"rho_index_{slot}", 0, len(self.rho) - 1)]
