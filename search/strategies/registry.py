"""Explicit name -> strategy."""

from __future__ import annotations

from collections.abc import Callable

from search.composition import Composition
from search.config import SearchConfig
from search.strategies.auto import Auto
from search.strategies.base import Setting, Strategy
from search.strategies.encodings import ENCODINGS
from search.strategies.greedy import Greedy
from search.strategies.grid import Grid
from search.strategies.random import Random
from search.strategies.refine import Refine
from search.strategies.sampled import Sampled
from search.strategies.samplers import SAMPLERS
from search.strategies.screened import Screened
from search.strategies.snr import SignalToNoise
from search.strategies.stages import Stages
from tasks.errors import InputError, nearest

STRATEGIES: dict[str, Callable[[Setting], Strategy]] = {
    "auto": Auto,
    "grid": Grid,
    "random": Random,
    "greedy": Greedy,
    "snr": SignalToNoise,
    "screened": Screened,
}
"""Strategies of our own; beside them every name of `SAMPLERS` is one."""

WANT_SPECTRA = ("snr",)
"""Strategies that read singular values."""

WANT_SCREEN = ("auto", "screened")
"""Strategies that a screen orders the candidates for."""

NEED_SCREEN = ("screened",)
"""Those that have no order of their own, should a model or task not allow a screen."""


def check_strategy(config: SearchConfig) -> None:
    """Raises InputError if there is no such strategy, or it cannot do what is asked of it."""
    name = config.strategy
    names = [*STRATEGIES, *SAMPLERS]
    if name not in names:
        raise InputError(
            f"search.strategy {name!r} does not exist; expected one of "
            f"{', '.join(names)}{nearest(name, names)}"
        )
    if name in SAMPLERS:
        SAMPLERS[name].check(name, config.objectives)


def make_strategy(config: SearchConfig, setting: Setting) -> Strategy:
    """The strategy of a configuration, with what comes first and last.

    Its `warm_start` holds compositions alone, as a plan leaves it. Raises InputError if there is no
    strategy of that name.
    """
    strategy = _named(config, setting)
    if not config.warm_start and not config.refine:
        return strategy
    first = [Composition.parse(text.split()) for text in config.warm_start]
    last = Refine(setting) if config.refine else None
    return Stages(first, strategy, last, config.refine)


def _named(config: SearchConfig, setting: Setting) -> Strategy:
    check_strategy(config)
    if config.strategy in STRATEGIES:
        return STRATEGIES[config.strategy](setting)
    encoding = ENCODINGS[config.encoding](setting.space)
    return Sampled(setting, SAMPLERS[config.strategy], encoding)
