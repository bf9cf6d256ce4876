"""What holds for every strategy: the history is all it knows, and what it proposes is new."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import TrialState

from laser_search.testing.strategies import Make, StrategyContract, effects
from search.ladder import Ladder
from search.sections import SearchConfig
from search.space import Space
from search.strategies.base import Setting, Strategy, Tried
from search.strategies.registry import STRATEGIES, make_strategy
from search.strategies.samplers import SAMPLERS

pytestmark = pytest.mark.slow
NAMES = [
    *(name for name in STRATEGIES if name != "budget"),
    *("tpe", "tpe/sites", "qmc", "nsga-ii/sites", "nsga-iii", "cma-es/sites"),
]

STAGED = "random with stages"


def staged(setting: Setting) -> Strategy:
    """Two given compositions first, a neighbourhood search last."""
    a, b, rho = *setting.space.matrices[:2], setting.space.levels[0]
    first = [f"{a}={rho}", f"{a}={rho} {b}={rho}"]
    return make_strategy(SearchConfig(strategy="random", warm_start=first, refine=0.3), setting)


class TestStrategies(StrategyContract):
    @pytest.fixture(params=[*NAMES, STAGED])
    def make(self, request: pytest.FixtureRequest) -> Make:
        """Build the strategy under test for a setting."""
        name, _, encoding = request.param.partition("/")
        if request.param == STAGED:
            return staged
        config = SearchConfig(strategy=name, encoding=encoding or "slots")
        return lambda setting: make_strategy(config, setting)


class TestGaussianProcess(StrategyContract):
    """In a space of four matrices, for with eight a proposal takes seconds."""

    @pytest.fixture
    def setting(self, setting: Setting) -> Setting:
        """Four matrices, of which two help, at three levels."""
        space = Space(setting.space.matrices[1:5], Ladder.of_rho((0.6, 0.2, 0.05)), 2)
        return replace(setting, space=space)

    @pytest.fixture
    def make(self) -> Make:
        """Build the strategy under test for a setting."""
        config = SearchConfig(strategy="gp", encoding="sites")
        return lambda setting: make_strategy(config, setting)


@pytest.mark.parametrize(
    "name", [*NAMES[: len(STRATEGIES) - 1], *(n for n, k in SAMPLERS.items() if not k.single)]
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
