"""Every strategy by its name: those built in, Optuna's samplers, and what packages bring."""

from __future__ import annotations

from search.config import SearchConfig
from search.cuts.composition import Composition
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
from tasks.plugins import Plugins

GROUP = "laser_search.strategies"
"""The entry point group in which a package names its strategies."""

STRATEGIES: dict[str, type[Strategy]] = {
    one.name: one for one in (Auto, Grid, Random, Greedy, SignalToNoise, Screened)
}
"""Strategies of our own; beside them every name of `SAMPLERS` is one."""


def _fault(found: object) -> str:
    known = isinstance(found, type) and issubclass(found, Strategy)
    return "" if known else "is no subclass of search.strategies.base.Strategy"


_PLUGINS: Plugins[type[Strategy]] = Plugins(
    GROUP, "strategy", [*STRATEGIES, *SAMPLERS], _fault, classes=True
)


def strategy_class(name: str) -> type[Strategy]:
    """The strategy called `name`, whose traits say what it wants to know.

    Raises InputError if there is none, or an installed one cannot be used.
    """
    if name in SAMPLERS:
        return Sampled
    found = STRATEGIES.get(name) or _PLUGINS.get(name)
    if found is None:
        names = [*STRATEGIES, *SAMPLERS, *_PLUGINS.names()]
        raise InputError(
            f"search.strategy {name!r} does not exist; expected one of "
            f"{', '.join(names)}{nearest(name, names)}"
        )
    return found


def check_strategy(config: SearchConfig) -> None:
    """Raises InputError if there is no such strategy, or it cannot do what is asked of it."""
    strategy_class(config.strategy)
    if config.strategy in SAMPLERS:
        SAMPLERS[config.strategy].check(config.strategy, config.objectives)


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
    if config.strategy in SAMPLERS:
        encoding = ENCODINGS[config.encoding](setting.space)
        return Sampled(setting, SAMPLERS[config.strategy], encoding)
    return strategy_class(config.strategy)(setting)
