"""What holds for every strategy: the history is all it knows, and what it proposes is new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from search.config import SearchConfig
from search.ladder import Ladder
from search.space import Site, Space
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.registry import STRATEGIES, make_strategy
from search.strategies.samplers import SAMPLERS

NAMES = [
    *STRATEGIES,
    *("tpe", "tpe/sites", "gp/sites", "qmc", "nsga-ii/sites", "nsga-iii", "cma-es/sites"),
]

Make = Callable[[Setting], Strategy]


STAGED = "random with stages"


@pytest.fixture(params=[*NAMES, STAGED])
def make(request: pytest.FixtureRequest) -> Make:
    """Build the strategy under test for a setting."""
    name, _, encoding = request.param.partition("/")
    if request.param == STAGED:
        return staged
    config = SearchConfig(strategy=name, encoding=encoding or "slots")
    return lambda setting: make_strategy(config, setting)


def staged(setting: Setting) -> Strategy:
    """Two given compositions first, a neighbourhood search last."""
    a, b, rho = *setting.space.matrices[:2], setting.space.levels[0]
    first = [f"{a}={rho}", f"{a}={rho} {b}={rho}"]
    return make_strategy(SearchConfig(strategy="random", warm_start=first, refine=0.3), setting)


def effects(history: History) -> list[str]:
    return [tried.effect for tried in history]


def of_the_space(tried: Tried, space: Space) -> bool:
    """Matrices of the space, and choices of it unless the rank was read off a spectrum."""
    if any(i.rule.name == "rank" for i in tried.composition.interventions):
        return {i.matrix for i in tried.composition.interventions} <= set(space.matrices)
    choices = space.choices(tried.composition)
    return choices is not None and len(choices) <= space.max_interventions


def test_it_proposes_what_is_new_and_of_the_space(make: Make, setting: Setting, run) -> None:
    history = run(make(setting))
    assert len(history) >= 8
    assert len(set(effects(history))) == len(history)
    assert "" not in effects(history)
    for tried in history:
        assert of_the_space(tried, setting.space)


def test_the_history_is_all_that_it_remembers(make: Make, setting: Setting, run) -> None:
    """Another process that reads the history goes on as the first would have."""
    whole = run(make(setting), 26)
    for cut in sorted({1, 5, min(9, len(whole) - 1), len(whole) // 2, len(whole) - 1}):
        history = run(make(setting), 26, stop=cut)
        assert effects(history) == effects(whole)[:cut]
        expected = whole[cut].composition
        assert make(setting).suggest(history) == expected
        again = make(setting)
        assert [again.suggest(history) for _ in range(2)] == [expected, expected]


def test_several_in_flight_end_at_the_budget_too(make: Make, setting: Setting, run) -> None:
    alone = run(make(setting), 20)
    for flying in (3, 7):
        history = run(make(setting), 20, flying=flying)
        assert len(set(effects(history))) == len(history)
        assert len(history) >= min(20, len(alone))


def test_it_ends_when_there_is_nothing_left(make: Make, setting: Setting, run) -> None:
    small = Space(setting.space.matrices[:3], Ladder.of_rho((0.5, 0.1)), 2)
    setting = replace(setting, space=small)
    history = run(make(setting), 100)
    assert len(history) <= 18
    assert len(set(effects(history))) == len(history)


def test_failures_and_early_stops_do_not_stop_it(make: Make, setting: Setting, new_history) -> None:
    strategy, history = make(setting), new_history()
    states = (TrialState.FAIL, TrialState.PRUNED)
    for number in range(14):
        composition = strategy.suggest(history)
        if composition is None:
            break
        steps = ((1, 0.1),) if number % 2 else ()
        effect = history.effect(composition)
        history.put(Tried(number, composition, effect))
        state = states[number % 2]
        history.put(Tried(number, composition, effect, state, (), 0.0, steps))
    assert len(history) > 0
    assert len(set(effects(history))) == len(history)


def test_groups_and_a_continuous_rho_are_searched_too(make: Make, setting: Setting, run) -> None:
    refs = setting.space.matrices
    groups = tuple(Site(f"{n}.mlp", refs[2 * n : 2 * n + 2]) for n in range(4))
    for ladder in (Ladder.of_rho((0.5, 0.1)), Ladder.between(0.01, 0.9)):
        space = Space(refs, ladder, 2, groups)
        history = run(make(replace(setting, space=space)), 20)
        assert len(history) >= 4, "something was to be proposed"
        assert len(set(effects(history))) == len(history)
        for tried in history:
            assert of_the_space(tried, space)


@pytest.mark.parametrize(
    "name", [*STRATEGIES, *(n for n, kind in SAMPLERS.items() if not kind.single)]
)
def test_a_trial_may_have_two_values(name: str, setting: Setting, new_history) -> None:
    setting = replace(setting, objectives=2)
    strategy, history = make_strategy(SearchConfig(strategy=name), setting), new_history(20)
    for number in range(12):
        composition = strategy.suggest(history)
        if composition is None:
            break
        kept = sum(i.rule.value for i in composition.interventions)
        state, values = TrialState.COMPLETE, (0.1 * (number % 4), -kept)
        history.put(Tried(number, composition, history.effect(composition), state, values, 1.0))
    assert len(set(effects(history))) == len(history) > 2
