from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.space import Space
from search.strategies.base import BASELINE_NUMBER, History, Setting, Strategy, Tried
from search.weights.spectra import Spectrum

FULL = 64
REFS = tuple(MatrixRef(layer, kind) for layer in range(4) for kind in ("fc_in", "fc_out"))
RHO = (0.9, 0.6, 0.2, 0.05, 0.01)
BEST = {"3.fc_in": 0.2, "1.fc_out": 0.05, "2.fc_in": 0.6}


def score(composition: Composition) -> float:
    """Every matrix has a rho of its own that helps, most of them none; 0 for the unedited model."""
    value = 0.0
    for i in composition.interventions:
        wanted = BEST.get(str(i.matrix))
        away = abs(math.log10(max(i.rule.value, 1e-3) / wanted)) if wanted else 2.0
        value += 0.1 * (1 - away)
    return round(value, 2)


def tried(number: int, composition: Composition, history: History) -> Tried:
    """A finished trial on the made-up landscape."""
    return Tried(
        number, composition, history.effect(composition), TrialState.COMPLETE,
        (score(composition),), 1 - score(composition),
    )  # fmt: skip


def begin(history: History, composition: Composition) -> int:
    """Put a trial in flight; returns its number."""
    number = len(history)
    history.put(Tried(number, composition, history.effect(composition)))
    return number


def end(history: History, number: int) -> None:
    """Put what became of a trial in flight."""
    history.put(tried(number, history[number].composition, history))


@pytest.fixture
def land() -> SimpleNamespace:
    """The made-up landscape: its best cuts, and a composition's score."""
    return SimpleNamespace(best={f"{m}={rho}" for m, rho in BEST.items()}, score=score)


@pytest.fixture
def flight() -> SimpleNamespace:
    """Put a trial in flight, and what became of it."""
    return SimpleNamespace(begin=begin, end=end)


@pytest.fixture
def setting() -> Setting:
    """A space of eight matrices and five fractions, with a screen that half knows."""
    chance = np.random.default_rng(0)
    spectra = {
        ref: Spectrum(str(ref), "", "", (FULL, FULL), np.linalg.svd(matrix)[1])
        for ref, matrix in zip(REFS, chance.standard_normal((len(REFS), FULL, FULL)), strict=True)
    }
    screen = {
        (cut := Intervention(ref, level)): -score(Composition((cut,)))
        + 0.1 * chance.standard_normal()
        for ref in REFS
        for level in Level.of_rho(RHO)
    }
    full = dict.fromkeys(REFS, FULL)
    return Setting(Space(REFS, Ladder.of_rho(RHO), 3), full, 3, screen=screen, spectra=spectra)


@pytest.fixture
def new_history(setting: Setting) -> Callable[[int], History]:
    """A history in which the unedited model is known."""

    def make(budget: int = 40) -> History:
        history = History(setting.max_ranks, budget)
        history.put(Tried(BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, (0.0,), 1.0))
        return history

    return make


@pytest.fixture
def run(new_history: Callable[[int], History]) -> Callable[..., History]:
    """Search the landscape one trial at a time, or with several in flight."""

    def go(
        strategy: Strategy, budget: int = 40, flying: int = 1, stop: int | None = None
    ) -> History:
        history = new_history(budget)
        for _ in islice(steps(strategy, history, flying), stop):
            pass
        for number in history.in_flight:
            end(history, number)
        return history

    return go


def steps(strategy: Strategy, history: History, flying: int = 1) -> Iterator[Composition]:
    """Drive a strategy to the end of the budget or of what it tries; trials end in odd order."""
    while True:
        while history.spent + len(history.in_flight) < history.budget and (
            len(history.in_flight) < flying
        ):
            proposed = strategy.suggest(history)
            if proposed is None:
                break
            begin(history, proposed)
            yield proposed
        if not history.in_flight:
            return
        end(history, history.in_flight[len(history) % len(history.in_flight)])
