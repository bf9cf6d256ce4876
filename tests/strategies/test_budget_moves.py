"""Every strategy that takes a budget keeps it; and what `budget` is for."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from laser_search.testing.strategies import Make, StrategyContract, new_history
from search.budget import Budget
from search.cuts.composition import Composition
from search.cuts.refs import ATTENTION, MatrixRef
from search.sections import BudgetConfig, SearchConfig
from search.space import Space
from search.strategies.auto import Auto
from search.strategies.base import Setting, Tried
from search.strategies.budget_moves import BudgetMoves, Pace
from search.strategies.one_shot import damage, one_shots, predictions, zero_sum
from search.strategies.registry import check_strategy, make_strategy
from tasks.errors import InputError

SHAPES = [(32, 32), (64, 32)] * 4
REFS = tuple(MatrixRef(n // 2, ("fc_in", "fc_out")[n % 2]) for n in range(8))
NEED = (0.9, 0.3, 0.2, 0.3, 0.8, 0.5, 0.2, 0.4)
"""What each matrix needs of its parameters; below, the loss rises with the square."""


def setting_of(kept=(0.45,), kinds=("keep-top",), shapes=SHAPES, screen=True) -> Setting:
    config = BudgetConfig(kept=list(kept), kind=list(kinds))
    budget = Budget.build(config, REFS[: len(shapes)], shapes)
    full = {ref: min(shape) for ref, shape in zip(budget.refs, shapes, strict=True)}
    rng = random.Random(0)
    known = {cut: rng.gauss(0, 1) for cut in budget.screened()} if screen else None
    return Setting(Space.within(budget), full, 3, screen=known)


def loss(budget: Budget, composition: Composition) -> float:
    found = budget.read(composition)
    missed = [max(0.0, n - s) for n, s in zip(NEED, budget.shares(found.steps), strict=False)]
    return sum(m * m for m in missed) * (1.0 if found.kind == "keep-top" else 0.5)


def search(setting: Setting, strategy, trials: int = 60):
    """Trials whose score is minus the loss, one at a time."""
    history = new_history(setting, trials)
    while len(history) < trials and (proposed := strategy.suggest(history)) is not None:
        effect, lost = history.effect(proposed), loss(setting.space.budget, proposed)
        history.put(Tried(len(history), proposed, effect, TrialState.COMPLETE, (-lost,), lost))
    return history


class TestOfBudgets(StrategyContract):
    @pytest.fixture(params=["budget", "random", "tpe"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        """Build the strategy under test for a setting."""
        return lambda setting: make_strategy(SearchConfig(strategy=request.param), setting)

    @pytest.fixture
    def setting(self) -> Setting:
        """Eight matrices of two shapes."""
        return setting_of()

    def small(self, setting: Setting) -> Setting:
        """Three allocations in all."""
        return setting_of([0.5], shapes=[(8, 8)] * 2)

    def others(self, setting: Setting) -> list[Setting]:
        """A choice of kinds, and no screen."""
        return [setting_of(kinds=("keep-top", "whitened")), setting_of(screen=False)]


@pytest.mark.parametrize("name", ["budget", "random", "tpe"])
def test_whatever_is_tried_fills_the_budget(name: str) -> None:
    setting = setting_of(kinds=("keep-top", "whitened"))
    history = search(setting, make_strategy(SearchConfig(strategy=name), setting), 30)
    budget = setting.space.budget
    for tried in history:
        left = budget.limit(0.45) - budget.stored(budget.read(tried.composition).steps)
        assert 0 <= left < max(map(sum, SHAPES))
    assert {budget.read(t.composition).kind for t in history} == set(budget.kinds)


def test_it_begins_uniform_and_then_as_the_screen_predicts() -> None:
    setting = setting_of([0.45, 0.3], ["whitened", "keep-top"])
    budget = setting.space.budget
    history = search(setting, BudgetMoves(setting), 20)
    found = [budget.read(tried.composition) for tried in history]
    kinds = [(share, kind) for share in (0.45, 0.3) for kind in ("whitened", "keep-top")]
    assert [(one.kept, one.kind) for one in found] == 5 * kinds
    assert [one.steps for one in found[:4]] == [budget.uniform(share) for share, _ in kinds]
    assert [t.composition for t in list(history)[4:]] == one_shots(budget, setting.screen)


def test_halfway_is_between_uniform_and_what_is_predicted() -> None:
    setting = setting_of()
    budget = setting.space.budget
    *whole, _, half = [
        budget.shares(budget.read(one).steps) for one in one_shots(budget, setting.screen)
    ]
    uniform = budget.shares(budget.uniform(0.45))
    wanted = [(one + other) / 2 for one, other in zip(whole[1], uniform, strict=True)]
    steps = [sum(shape) / size for shape, size in zip(SHAPES, budget.sizes, strict=True)]
    assert all(
        abs(one - other) <= 2 * step for one, other, step in zip(half, wanted, steps, strict=True)
    )
    assert half != uniform and half != whole[1]


def test_moves_between_many_matrices_find_what_single_ones_are_too_slow_for() -> None:
    """Early layers need more, as in most language models: 64 matrices, 60 trials."""
    refs = tuple(MatrixRef(n // 4, ATTENTION[n % 4]) for n in range(64))
    budget = Budget.build(BudgetConfig(kept=[0.45]), refs, [(32, 32)] * 64)
    full = {ref: 32 for ref in refs}

    def lost(composition: Composition) -> float:
        shares = budget.shares(budget.read(composition).steps)
        wanted = [0.7 - 0.5 * ref.layer / 15 for ref in refs]
        return sum((one - other) ** 2 for one, other in zip(shares, wanted, strict=True))

    def best(pace: Pace, seed: int) -> float:
        setting = Setting(Space.within(budget), full, seed)
        strategy, history = BudgetMoves(setting, pace), new_history(setting, 60)
        while len(history) < 60:
            proposed = strategy.suggest(history)
            history.put(
                Tried(
                    len(history), proposed, history.effect(proposed), TrialState.COMPLETE,
                    (-lost(proposed),), lost(proposed),
                )
            )  # fmt: skip
        return history.best().log_loss

    uniform = lost(budget.composition(budget.uniform(0.45), "keep-top"))
    broad, single = (
        [best(pace, seed) / uniform for seed in range(4)] for pace in (Pace(), Pace(broad=0))
    )
    assert max(broad) < min(single), (broad, single)


def test_moves_find_what_uniform_and_a_wrong_screen_miss() -> None:
    setting = setting_of()
    history = search(setting, BudgetMoves(setting), 60)
    first = [loss(setting.space.budget, tried.composition) for tried in list(history)[:2]]
    best = history.best().log_loss
    drawn = search(setting, make_strategy(SearchConfig(strategy="random"), setting), 60)
    assert best < 0.3 * min(first)
    assert best < drawn.best().log_loss


def test_shares_take_turns_and_each_has_moves_of_its_own() -> None:
    setting = setting_of([0.45, 0.3])
    budget = setting.space.budget
    history = search(setting, BudgetMoves(setting), 50)
    kept = [budget.read(tried.composition).kept for tried in history][10:]
    assert kept == [0.45, 0.3] * 20
    for share in (0.45, 0.3):
        own = [t for t in history if budget.read(t.composition).kept == share]
        assert max(own, key=lambda t: t.merit).number >= 10


def test_a_step_that_hurts_is_tried_the_other_way() -> None:
    setting = setting_of(screen=False)
    budget = setting.space.budget
    strategy, history = BudgetMoves(setting), new_history(setting, 40)

    def put(composition: Composition, lost: float) -> None:
        effect = history.effect(composition)
        history.put(Tried(len(history), composition, effect, TrialState.COMPLETE, (-lost,), lost))

    put(strategy.suggest(history), 1.0)
    put(worse := strategy.suggest(history), 2.0)
    base = budget.uniform(0.45)
    away = [b - a for a, b in zip(base, budget.read(worse).steps, strict=True)]
    back = budget.read(strategy.suggest(history)).steps
    opposite = [b - a for a, b in zip(base, back, strict=True)]
    assert sum(a * b for a, b in zip(away, opposite, strict=True)) < 0
    put(budget.composition(back, "keep-top"), 3.0)
    third = budget.read(strategy.suggest(history)).steps
    assert any(abs(a - b) > 1 for a, b in zip(third, budget.read(worse).steps, strict=True))


def test_a_trial_above_its_floor_is_the_base_whatever_others_score() -> None:
    setting = setting_of(screen=False)
    history = new_history(setting, 40)
    strategy = BudgetMoves(setting)
    for number in range(8):
        proposed = strategy.suggest(history)
        broken = {} if number == 3 else {"x.limit": 0.5}
        history.put(
            Tried(
                number, proposed, history.effect(proposed), TrialState.COMPLETE,
                (float(number),), 1.0, (), broken,
            )
        )  # fmt: skip
    assert strategy._base(history, 0.45).number == 3


def test_damage_is_what_the_screen_moves_and_falls_to_nothing() -> None:
    setting = setting_of(shapes=[(100, 100), (64, 32)])
    budget = setting.space.budget
    screen = {cut: -3.0 * math.sqrt(cut.rule.value) for cut in budget.screened()}
    damages = damage(budget, predictions(budget, screen, "keep-top"))
    for losses, top in zip(damages, budget.tops, strict=True):
        assert len(losses) == top and losses[-1] == 0
        assert losses == sorted(losses, reverse=True)
    assert damages[1][4] == pytest.approx(3 * (math.sqrt(32) - math.sqrt(5)))
    assert damages[0][1] == pytest.approx(3 * (10 - math.sqrt(2)), rel=0.02)


def test_a_screen_is_read_at_the_ranks_that_it_has() -> None:
    """Those of a study that began when a screen had other ranks, too."""
    setting = setting_of(shapes=[(100, 100), (64, 32)])
    budget = setting.space.budget
    screen = {cut: -math.sqrt(cut.rule.value) for cut in budget.screened()}
    few = {
        cut: change
        for cut, change in screen.items()
        if cut.rule.value % 2 or cut.matrix == budget.refs[1]
    }
    (some, other), (all_, same) = (predictions(budget, s, "keep-top") for s in (few, screen))
    assert len(some.ranks) < len(all_.ranks) and other == same
    assert some.ranks[0] == 1 and some.ranks[-1] == 100
    for one, rank in ((some, 3), (all_, 3), (other, 32)):
        assert one.changes[one.ranks.index(rank)] == -math.sqrt(rank)
    nothing = predictions(budget, {}, "keep-top")
    assert [(one.ranks, one.changes) for one in nothing] == [([1, 100], [0, 0]), ([1, 32], [0, 0])]


def test_zero_sum_drops_the_smallest_change_that_brings_the_sum_back() -> None:
    """Against the rule written down once more, over lists instead of heaps."""
    setting = setting_of()
    budget = setting.space.budget
    predicted = predictions(budget, setting.screen, "keep-top")
    for kept in (0.8, 0.45, 0.2):
        ranks, running = [min(shape) for shape in budget.shapes], 0.0
        while True:
            steps = tuple(min(r, top) for r, top in zip(ranks, budget.tops, strict=True))
            if budget.stored(steps) <= budget.limit(kept):
                break
            nexts = [
                (own.changes[rank - 2] - own.changes[rank - 1], place)
                for place, (own, rank) in enumerate(zip(predicted, ranks, strict=True))
                if rank > 1
            ]
            rising = [one for one in nexts if (one[0] >= 0) == (running <= 0)] or nexts
            change, place = min(rising, key=lambda one: (abs(one[0]), one[1]))
            ranks[place] -= 1
            running += change
        found = zero_sum(budget, predicted, kept)
        assert found == budget.fill(steps, kept, budget.shares(steps))
        assert 0 <= budget.limit(kept) - budget.stored(found) < max(map(sum, SHAPES))


@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [
        ("grid", [0.5], "'grid' cannot keep a budget.*auto, random, budget, tpe"),
        ("greedy", [0.5], "cannot keep a budget"),
        ("snr", [0.5], "cannot keep a budget"),
        ("screened", [0.5], "cannot keep a budget"),
        ("tpe", [0.5, 0.3], "largest of 2 budgets; launch a study for each"),
        ("budget", None, r"there is none; give one, such as space\.budget"),
    ],
)
def test_strategies_that_cannot_are_refused(name, kept, said) -> None:
    budget = None if kept is None else BudgetConfig(kept=kept)
    with pytest.raises(InputError, match=said):
        check_strategy(SearchConfig(strategy=name), budget)


def test_auto_is_budget_where_there_is_one() -> None:
    assert isinstance(make_strategy(SearchConfig(), setting_of()), BudgetMoves)
    check_strategy(SearchConfig(), BudgetConfig(kept=[0.5, 0.3]))
    plain = replace(setting_of(), space=Space(REFS, setting_of().space.ladder, 2))
    assert isinstance(make_strategy(SearchConfig(), plain), Auto)


@pytest.mark.parametrize("by_log_loss", [False, True])
def test_hits_and_misses_are_told_apart_by_log_loss(by_log_loss: bool) -> None:
    setting = replace(setting_of(screen=False), by_log_loss=by_log_loss)
    history, strategy = new_history(setting, 40), BudgetMoves(setting)
    for number, (right, lost) in enumerate([(0.5, 0.7), (0.6, 0.8), (0.5, 0.6), (0.4, 0.9)]):
        proposed = strategy.suggest(history)
        history.put(
            Tried(
                number, proposed, history.effect(proposed), TrialState.COMPLETE, (right,), lost
            )
        )  # fmt: skip
    assert strategy._base(history, 0.45).number == (2 if by_log_loss else 1)
