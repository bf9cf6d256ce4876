"""Which compositions a strategy would try, were scores chance: to reckon what trials cost."""

from __future__ import annotations

import random
from dataclasses import replace

from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.sections import SearchConfig
from search.strategies.base import BASELINE_NUMBER, History, Setting, Tried
from search.strategies.registry import make_strategy, strategy_class
from search.strategies.singles import screened

MOST = 300
"""Trials that are rehearsed; the rest is taken to be like them."""


def rehearse(search: SearchConfig, setting: Setting, budget: int) -> list[Composition]:
    """The first compositions of a search of `budget` trials, none of which is evaluated.

    A strategy that reads singular values, which are not known yet, is stood in for by draws from
    the space.
    """
    rng = random.Random(search.seed)  # noqa: S311  # no secret
    space = setting.space
    count = min(budget, MOST)
    traits = strategy_class(search.strategy)
    if traits.wants_spectra or space.ladder.needs_spectra:
        return [space.cut(space.draw(rng)) for _ in range(count)]
    if traits.wants_screen:
        screen = {cut: rng.gauss(0.0, 1.0) for cut in screened(space)}
        setting = replace(setting, screen=screen)
    history = History(setting.max_ranks, budget)
    values = (0.5,) * setting.objectives
    history.put(Tried(BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, values, 1.0))
    strategy = make_strategy(search, setting)
    found: list[Composition] = []
    while len(found) < count:
        proposed = strategy.suggest(history)
        if proposed is None:
            break
        tried = Tried(len(history), proposed, history.effect(proposed))
        history.put(tried)
        scores = tuple(0.5 + rng.gauss(0.0, 0.05) for _ in values)
        history.put(
            replace(tried, state=TrialState.COMPLETE, values=scores, log_loss=1 - scores[0])
        )
        found.append(proposed)
    return found
