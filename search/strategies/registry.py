"""Explicit name -> strategy."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler

from search.strategies import random, tpe
from search.strategies.replayable import ReplayableSampler
from tasks.errors import InputError, nearest

STRATEGIES: dict[str, Callable[[int], BaseSampler]] = {"tpe": tpe.make, "random": random.make}


def check_strategy(name: str) -> None:
    """Raises InputError if there is no strategy of that name."""
    if name not in STRATEGIES:
        raise InputError(
            f"search.strategy {name!r} does not exist; expected one of "
            f"{', '.join(STRATEGIES)}{nearest(name, STRATEGIES)}"
        )


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The strategy's sampler. Raises InputError if there is no strategy of that name."""
    check_strategy(name)
    return ReplayableSampler(STRATEGIES[name], seed)
