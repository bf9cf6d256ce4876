"""A budget is never exceeded, is filled to a step, and every way to divide it keeps it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget import SCREENED, Budget, ladder
from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.sections import BudgetConfig, SpaceConfig
from search.space import Space
from tasks.errors import InputError

SHAPES = [(3, 1), (8, 8), (8, 8), (32, 8), (8, 32), (12, 5), (64, 64)]


def budget_of(shapes, kept, kinds=("keep-top",)) -> Budget:
    refs = tuple(MatrixRef(n, "fc_in") for n in range(len(shapes)))
    return Budget.build(BudgetConfig(kept=list(kept), kind=list(kinds)), refs, shapes)


@st.composite
def budgets(draw) -> Budget:
    shapes = draw(st.lists(st.sampled_from(SHAPES[1:]), min_size=1, max_size=9))
    shapes += draw(st.lists(st.sampled_from(SHAPES), max_size=3))
    least = sum(min(a + b, a * b) for a, b in shapes) / sum(a * b for a, b in shapes)
    return budget_of(shapes, [draw(st.floats(min(0.999, least + 1e-6), 0.999))])


few = settings(max_examples=40, deadline=None)
wishes = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=12, max_size=12)


def is_full(budget: Budget, steps) -> bool:
    """Within the budget, and no single step more is."""
    left = budget.limit(budget.kept[0]) - budget.stored(steps)
    return left >= 0 and all(
        step == top or budget.cost(n, step + 1) - budget.cost(n, step) > left
        for n, (step, top) in enumerate(zip(steps, budget.tops, strict=True))
    )


@few
@given(budgets(), wishes)
def test_a_projection_fills_the_budget_to_a_step(budget: Budget, wanted) -> None:
    steps = budget.project(wanted[: len(budget.refs)], budget.kept[0])
    assert is_full(budget, steps)
    assert all(1 <= step <= top for step, top in zip(steps, budget.tops, strict=True))


@few
@given(budgets(), wishes)
def test_a_projection_is_its_own(budget: Budget, wanted) -> None:
    kept = budget.kept[0]
    steps = budget.project(wanted[: len(budget.refs)], kept)
    assert budget.project(budget.shares(steps), kept) == steps


@few
@given(budgets(), wishes)
def test_who_asks_for_more_has_at_least_as_much(budget: Budget, wanted) -> None:
    steps = budget.project(wanted[: len(budget.refs)], budget.kept[0])
    for a, shape in enumerate(budget.shapes):
        for b, other in enumerate(budget.shapes):
            if shape == other and wanted[a] > wanted[b]:
                assert steps[a] >= steps[b]


@few
@given(budgets(), wishes, st.floats(0, 1))
def test_a_larger_budget_takes_nothing_away_but_a_rounded_step(budget, wanted, share) -> None:
    less = budget.kept[0]
    more = less + share * (0.999 - less)
    own = wanted[: len(budget.refs)]
    small, large = (budget.project(own, kept, even=True) for kept in (less, more))
    assert all(a <= b + 1 for a, b in zip(small, large, strict=True))


@few
@given(budgets())
def test_uniform_is_the_same_share_up_to_a_step(budget: Budget) -> None:
    """What cannot be smaller or larger than it is, apart."""
    steps = budget.uniform(budget.kept[0])
    left = budget.limit(budget.kept[0]) - budget.stored(steps)
    assert 0 <= left < max(sum(shape) for shape in budget.shapes)
    free = [n for n, step in enumerate(steps) if 1 < step < budget.tops[n]]
    for a in free:
        for b in free:
            above = budget.cost(a, steps[a] + 1) / budget.sizes[a]
            assert above >= budget.cost(b, steps[b] - 1) / budget.sizes[b]
    for a in free:
        for b, step in enumerate(steps):
            if step == budget.tops[b] > 1:  # whole: a step less would be below the others
                assert budget.cost(b, step - 1) / budget.sizes[b] <= (
                    budget.cost(a, steps[a] + 1) / budget.sizes[a]
                )


def test_uniform_over_equal_matrices_is_equal() -> None:
    budget = budget_of([(64, 64)] * 6, [0.5])
    assert budget.uniform(0.5) == (16,) * 6
    assert budget.stored((16,) * 6) == budget.limit(0.5)


@few
@given(budgets(), st.data())
def test_one_shot_fills_the_budget_to_a_step(budget: Budget, data) -> None:
    """Whatever the predictions, also those that rise, fall, or say nothing."""
    values = st.floats(0, 10) | st.just(0.0)
    damage = [data.draw(st.lists(values, min_size=t, max_size=t)) for t in budget.tops]
    assert is_full(budget, budget.allocate(damage, budget.kept[0]))


def test_one_shot_is_the_best_there_is_where_damage_is_convex() -> None:
    from itertools import product

    budget = budget_of([(8, 8), (6, 12), (8, 8)], [0.55])
    rng = random.Random(3)
    for _ in range(40):
        damage = []
        for top in budget.tops:
            falls = sorted(rng.random() for _ in range(top - 1))
            damage.append([sum(falls[: top - 1 - k]) for k in range(top)])
        own = budget.allocate(damage, 0.55)
        within = [
            steps
            for steps in product(*(range(1, top + 1) for top in budget.tops))
            if budget.stored(steps) <= budget.limit(0.55)
        ]

        def lost(steps, damage=damage) -> float:
            return sum(own[step - 1] for own, step in zip(damage, steps, strict=True))

        # The best up to the step that does not fit any more.
        largest = max(own[0] - own[-1] for own in damage)
        assert lost(own) <= min(map(lost, within)) + largest
        assert lost(own) <= lost(budget.uniform(0.55)) + largest


def test_one_shot_gives_to_who_loses_most() -> None:
    budget = budget_of([(64, 64)] * 3, [0.5])
    base = [1.0 - k / 32 for k in range(32)]
    dear = [100 * value for value in base]
    steps = budget.allocate([base, dear, base], 0.5)
    assert steps[1] == budget.tops[1] > max(steps[0], steps[2])


@few
@given(budgets(), wishes)
def test_a_composition_reads_back_as_its_allocation(budget: Budget, wanted) -> None:
    kept = budget.kept[0]
    steps = budget.project(wanted[: len(budget.refs)], kept)
    composition = budget.composition(steps, "keep-top")
    if composition.interventions:
        found = budget.read(composition)
        assert (found.steps, found.kind, found.kept) == (steps, "keep-top", kept)
        saved = sum(
            budget.sizes[n] - cut.made_by.stored(cut.rule, budget.shapes[n])
            for n, ref in enumerate(budget.refs)
            for cut in composition.interventions
            if cut.matrix == ref
        )
        assert budget.total - saved == budget.stored(steps), "as the trial's record counts"


def test_what_is_no_allocation_is_not_read() -> None:
    budget = budget_of([(64, 64)] * 2, [0.5, 0.3], ["whitened", "keep-top"])
    for text in (
        "0.fc_in=0.1 1.fc_in=rank:3",
        "0.fc_in=rank:3 1.fc_in=whitened/rank:3",
        "0.fc_in=rank:3 7.fc_in=rank:3",
        "0.fc_in=rank:40 1.fc_in=rank:1",
        "0.fc_in=rank:3",
        "0.fc_in=keep-bottom/rank:3 1.fc_in=keep-bottom/rank:3",
    ):
        assert budget.read(Composition.parse(text.split())) is None, text
    assert budget.read(Composition()) is None
    assert budget.read(Composition.parse(["0.fc_in=rank:9", "1.fc_in=rank:9"])).kept == 0.3
    assert budget.read(Composition.parse(["0.fc_in=rank:9", "1.fc_in=rank:11"])).kept == 0.5


@pytest.mark.parametrize(
    ("kept", "kinds", "said"),
    [
        ([0.01], ["keep-top"], r"0\.01 is less than these 2 matrices take at rank 1.*0\.03125"),
        ([0.5], ["keep-bottom"], "keep-bottom.*expected keep-top or whitened"),
        ([0.5], ["prune"], "prune.*expected keep-top or whitened"),
        ([0.5], ["nothing"], "kind 'nothing' does not exist"),
    ],
)
def test_budgets_that_cannot_be_are_refused(kept, kinds, said) -> None:
    with pytest.raises(InputError, match=said):
        budget_of([(64, 64)] * 2, kept, kinds)


def test_matrices_that_no_rank_makes_smaller_are_refused() -> None:
    with pytest.raises(InputError, match="nothing to divide"):
        budget_of([(3, 1), (2, 2)], [0.9999999999])


@few
@given(st.integers(1, 3000))
def test_the_screened_ranks_go_from_one_to_all(full: int) -> None:
    ranks = ladder(full)
    assert ranks[0] == 1 and ranks[-1] == full and len(ranks) == min(full, SCREENED)
    assert ranks == sorted(set(ranks))


def space_of(budget: Budget) -> Space:
    return Space.within(budget)


@few
@given(budgets(), st.integers(0, 10**6))
def test_draws_of_the_space_are_allocations(budget: Budget, seed: int) -> None:
    space = space_of(replace(budget, kinds=("keep-top", "whitened")))
    near: list = []
    for keep in (0.0, 0.9):
        choices = space.draw(random.Random(seed), near, keep)
        if choices:
            found = space.budget.read(space.cut(choices))
            assert is_full(budget, found.steps)
            assert space.choices(space.cut(choices)) == choices
            near = choices


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"levels": [0.5]}, r"leave levels out, and name the kind of cut with budget\.kind"),
        ({"rho": [0.5]}, "leave rho out"),
        ({"groups": ["mlp"]}, "leave groups out"),
        ({"max_interventions": 2}, "leave max_interventions out"),
        ({"budget": {"kept": 0}}, "greater than 0"),
        ({"budget": {"kept": 1}}, "less than 1"),
        ({"budget": {"kept": 1.2}}, "less than 1"),
        ({"budget": {"kept": []}}, "at least 1 item"),
    ],
)
def test_what_makes_no_sense_beside_a_budget_is_refused(given, said) -> None:
    with pytest.raises(ValueError, match=said):
        SpaceConfig.model_validate({"budget": {"kept": 0.5}, **given})


def test_a_frozen_budget_reads_back() -> None:
    config = SpaceConfig.model_validate({"budget": {"kept": [0.45, 0.3], "kind": "whitened"}})
    assert config.rho is None
    assert SpaceConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.budget.shares == (0.45, 0.3) and config.budget.kinds == ("whitened",)
