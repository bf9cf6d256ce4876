"""What holds for every strategy: the history is all it knows, and what it proposes is new."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.space import Site, Space
from search.strategies.base import BASELINE_NUMBER, History, Setting, Strategy, Tried
from search.weights.spectra import Spectrum

FULL = 64
REFS = tuple(MatrixRef(layer, kind) for layer in range(4) for kind in ("fc_in", "fc_out"))
RHO = (0.9, 0.6, 0.2, 0.05, 0.01)
BEST = {"3.fc_in": 0.2, "1.fc_out": 0.05, "2.fc_in": 0.6}
"""The rho that helps, of the matrices where one does."""

Make = Callable[[Setting], Strategy]


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


@cache
def _singular_values() -> np.ndarray:
    """Those of a random matrix for each of REFS, [matrices, FULL]."""
    matrices = np.random.default_rng(0).standard_normal((len(REFS), FULL, FULL))
    return np.linalg.svd(matrices, compute_uv=False)


def make_setting() -> Setting:
    """A space of eight matrices and five fractions, with a screen that half knows."""
    chance = np.random.default_rng(1)
    spectra = {
        ref: Spectrum(str(ref), "", "", (FULL, FULL), values)
        for ref, values in zip(REFS, _singular_values(), strict=True)
    }
    screen = {
        (cut := Intervention(ref, level)): -score(Composition((cut,)))
        + 0.1 * chance.standard_normal()
        for ref in REFS
        for level in Level.of_rho(RHO)
    }
    full = dict.fromkeys(REFS, FULL)
    return Setting(Space(REFS, Ladder.of_rho(RHO), 3), full, 3, screen=screen, spectra=spectra)


def new_history(setting: Setting, budget: int = 40) -> History:
    """A history in which the unedited model is known."""
    history = History(setting.max_ranks, budget, setting.spectra)
    history.put(Tried(BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, (0.0,), 1.0))
    return history


def run(
    strategy: Strategy,
    setting: Setting,
    budget: int = 40,
    flying: int = 1,
    stop: int | None = None,
) -> History:
    """Search the landscape one trial at a time, or with several in flight."""
    history = new_history(setting, budget)
    for _ in islice(steps(strategy, history, flying), stop):
        pass
    for number in history.in_flight:
        end(history, number)
    return history


def effects(history: History) -> list[str]:
    """What each trial does to the model."""
    return [one.effect for one in history]


def of_the_space(one: Tried, space: Space) -> bool:
    """Matrices of the space, and choices of it unless the rank was read off a spectrum."""
    if any(i.rule.name == "rank" for i in one.composition.interventions):
        return {i.matrix for i in one.composition.interventions} <= set(space.matrices)
    choices = space.choices(one.composition)
    return choices is not None and len(choices) <= space.max_interventions


class StrategyContract:
    """Override `make`: what builds the strategy under test for a setting.

    One that searches spaces of its own overrides `setting`, `small` and `others` too.
    """

    @pytest.fixture
    def make(self) -> Make:
        """Build the strategy under test."""
        raise NotImplementedError

    @pytest.fixture
    def setting(self) -> Setting:
        """A small space on a made-up landscape."""
        return make_setting()

    def small(self, setting: Setting) -> Setting:
        """A space of no more than 18 effects."""
        space = Space(setting.space.matrices[:3], Ladder.of_rho((0.5, 0.1)), 2)
        return replace(setting, space=space)

    def others(self, setting: Setting) -> list[Setting]:
        """Spaces with groups, a range, and levels of every kind."""
        refs = setting.space.matrices
        groups = tuple(Site(f"{n // 2}.mlp", refs[n : n + 2]) for n in range(0, len(refs), 2))
        texts = (0.5, 0.1, "rank:7", "energy:0.9", "marchenko-pastur", "prune/0.5", "zero")
        ladders = (
            Ladder.of_rho((0.5, 0.1)),
            Ladder.between(0.01, 0.9),
            Ladder.of([Level.parse(text) for text in texts]),
        )
        return [replace(setting, space=Space(refs, ladder, 2, groups)) for ladder in ladders]

    def test_it_proposes_what_is_new_and_of_the_space(self, make: Make, setting: Setting) -> None:
        history = run(make(setting), setting)
        assert len(history) >= 8
        assert len(set(effects(history))) == len(history)
        assert "" not in effects(history)
        for one in history:
            assert of_the_space(one, setting.space)

    def test_the_history_is_all_that_it_remembers(self, make: Make, setting: Setting) -> None:
        """Another process that reads the history goes on as the first would have."""
        whole = run(make(setting), setting, 26)
        for cut in sorted({1, 5, min(9, len(whole) - 1), len(whole) // 2, len(whole) - 1}):
            history = run(make(setting), setting, 26, stop=cut)
            assert effects(history) == effects(whole)[:cut]
            expected = whole[cut].composition
            assert make(setting).suggest(history) == expected
            again = make(setting)
            assert [again.suggest(history) for _ in range(2)] == [expected, expected]

    def test_several_in_flight_end_at_the_budget_too(self, make: Make, setting: Setting) -> None:
        alone = run(make(setting), setting, 20)
        for flying in (3, 7):
            history = run(make(setting), setting, 20, flying=flying)
            assert len(set(effects(history))) == len(history)
            assert len(history) >= min(20, len(alone))

    def test_it_ends_when_there_is_nothing_left(self, make: Make, setting: Setting) -> None:
        setting = self.small(setting)
        history = run(make(setting), setting, 100)
        assert 0 < len(history) <= 18
        assert len(set(effects(history))) == len(history)

    def test_failures_and_early_stops_do_not_stop_it(self, make: Make, setting: Setting) -> None:
        strategy, history = make(setting), new_history(setting)
        states = (TrialState.FAIL, TrialState.PRUNED)
        for number in range(14):
            composition = strategy.suggest(history)
            if composition is None:
                break
            pruned_at = ((1, 0.1),) if number % 2 else ()
            effect = history.effect(composition)
            history.put(Tried(number, composition, effect))
            state = states[number % 2]
            history.put(Tried(number, composition, effect, state, (), 0.0, pruned_at))
        assert len(history) > 0
        assert len(set(effects(history))) == len(history)

    def test_groups_ranges_and_levels_of_every_kind_are_searched_too(
        self, make: Make, setting: Setting
    ) -> None:
        for there in self.others(setting):
            history = run(make(there), there, 20)
            assert len(history) >= 4, "something is to be proposed in every space"
            assert len(set(effects(history))) == len(history)
            for one in history:
                assert of_the_space(one, there.space)
