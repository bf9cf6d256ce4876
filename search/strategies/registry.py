"""Every strategy by its name: those built in, Optuna's samplers, and what packages bring."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.sections import BudgetConfig, SearchConfig
from search.strategies.auto import Auto
from search.strategies.base import Setting, Strategy
from search.strategies.budget_moves import BudgetMoves
from search.strategies.encodings import ENCODINGS, Encoding
from search.strategies.greedy import Greedy
from search.strategies.grid import Grid
from search.strategies.random import Random
from search.strategies.refine import Refine
from search.strategies.sampled import Sampled
from search.strategies.samplers import SAMPLERS
from search.strategies.screened import Screened
from search.strategies.shares import Shares
from search.strategies.snr import SignalToNoise
from search.strategies.stages import Stages
from tasks.errors import InputError, nearest
from tasks.plugins import Plugins

GROUP = "laser_search.strategies"
"""The entry point group in which a package names its strategies."""

STRATEGIES: dict[str, type[Strategy]] = {
    one.name: one for one in (Auto, Grid, Random, Greedy, SignalToNoise, Screened, BudgetMoves)
}
"""Strategies of our own; beside them every name of `SAMPLERS` is one."""


def _fault(found: object) -> str:
    known = isinstance(found, type) and issubclass(found, Strategy)
    return "" if known else "is not a subclass of search.strategies.base.Strategy"


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


def check_strategy(config: SearchConfig, budget: BudgetConfig | None = None) -> None:
    """Raises InputError if there is no such strategy, or it cannot do what is asked of it."""
    name, found = config.strategy, strategy_class(config.strategy)
    if name in SAMPLERS:
        SAMPLERS[name].check(name, config.objectives)
    if budget is None:
        if found is BudgetMoves:
            raise InputError(
                f"search.strategy {name!r} divides a budget, and there is none; give one, such as "
                "space.budget: {kept: 0.45}, or choose another strategy"
            )
        return
    if not found.takes_budget:
        known = [name for name, one in STRATEGIES.items() if one.takes_budget]
        raise InputError(
            f"search.strategy {name!r} cannot keep a budget; with space.budget take "
            f"{', '.join([*known, *SAMPLERS])}"
        )
    if name in SAMPLERS and (count := len(set(budget.shares))) > 1:
        raise InputError(
            f"search.strategy {name!r} looks for one best and would spend its trials on the "
            f"largest of {count} budgets; launch a study for each, or take {BudgetMoves.name}"
        )


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
    name, budget = config.strategy, setting.space.budget
    if name in SAMPLERS:
        SAMPLERS[name].check(name, config.objectives)
        encoding: Encoding = ENCODINGS[config.encoding](setting.space)
        if budget is not None:
            encoding = Shares(setting.space)
        return Sampled(setting, SAMPLERS[name], encoding)
    if name == Auto.name and budget is not None:
        return BudgetMoves(setting)
    return strategy_class(name)(setting)
