"""Explicit name -> strategy."""

from __future__ import annotations

from collections.abc import Callable

from search.config import SearchConfig
from search.strategies.base import Setting, Strategy
from search.strategies.encodings import ENCODINGS
from search.strategies.greedy import Greedy
from search.strategies.grid import Grid
from search.strategies.random import Random
from search.strategies.sampled import Sampled
from search.strategies.samplers import SAMPLERS
from search.strategies.screened import Screened
from search.strategies.snr import SignalToNoise
from tasks.errors import InputError, nearest

STRATEGIES: dict[str, Callable[[Setting], Strategy]] = {
    "grid": Grid,
    "random": Random,
    "greedy": Greedy,
    "snr": SignalToNoise,
    "screened": Screened,
}
"""Strategies of our own; beside them every name of `SAMPLERS` is one."""


WANT_SPECTRA = ("snr",)
"""Strategies that read singular values."""

WANT_SCREEN = ("screened",)
"""Strategies that a screen orders the candidates for."""


def check_strategy(name: str) -> None:
    """Raises InputError if there is no strategy of that name, or its library is absent."""
    names = [*STRATEGIES, *SAMPLERS]
    if name not in names:
        raise InputError(
            f"search.strategy {name!r} does not exist; expected one of "
            f"{', '.join(names)}{nearest(name, names)}"
        )
    if name in SAMPLERS:
        SAMPLERS[name].check(name)


def make_strategy(config: SearchConfig, setting: Setting) -> Strategy:
    """The strategy of a configuration. Raises InputError if there is none of that name."""
    check_strategy(config.strategy)
    if config.strategy in STRATEGIES:
        return STRATEGIES[config.strategy](setting)
    encoding = ENCODINGS[config.encoding](setting.space)
    return Sampled(setting, SAMPLERS[config.strategy], encoding)
