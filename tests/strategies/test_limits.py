"""What the floors will refuse is foreseen, from predictions and from the trials so far."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.strategies.auto import Auto
from search.strategies.base import History, Setting, Tried
from search.strategies.limits import REFUSED, Limits, share_used
from search.strategies.refine import Refine
from search.strategies.screened import Screened
from tasks.guarded import GENERAL_TEXT

KEY, ROOM = f"{GENERAL_TEXT}.worse_by", 0.01
COSTLY = ("3.", "1.")
"""Layers whose cuts cost much, in proportion to what is removed."""


def cost(composition: Composition) -> float:
    """Nats that general text loses."""
    return sum(
        (0.08 if str(cut).startswith(COSTLY) else 0.004) * (1 - cut.rule.value)
        for cut in composition.interventions
    )


def end(history: History, composition: Composition, lost: float | None = None) -> Tried:
    """A finished trial that scores what it cuts and loses `lost` nats of general text."""
    lost = cost(composition) if lost is None else lost
    score = sum(1 - cut.rule.value for cut in composition.interventions)
    tried = Tried(
        len(history),
        composition,
        history.effect(composition),
        TrialState.COMPLETE,
        (score,),
        1 - score,
        violations={KEY: lost - ROOM},
    )
    history.put(tried)
    return tried


@pytest.fixture
def limited(new_history) -> History:
    history = new_history()
    history.room = {KEY: ROOM}
    return history


@pytest.fixture
def foreseen(setting: Setting) -> Setting:
    """What a screen predicts: what is cut gains, and costs within a factor of what it will cost."""
    cuts = [Intervention(ref, level) for ref in setting.space.matrices
            for level in setting.space.levels]  # fmt: skip
    single = {cut: Composition((cut,)) for cut in cuts}
    return replace(
        setting,
        screen={cut: cut.rule.value - 1 for cut in cuts},
        costs={cut: 1.5 * cost(one) for cut, one in single.items()},
    )


def parse(*texts: str) -> Composition:
    return Composition.parse(list(texts))


def chance(setting: Setting, limits: Limits, *texts: str, base: Tried | None = None) -> float:
    choices = setting.space.choices(parse(*texts))
    if base is None:
        return limits.chance(choices)
    before = setting.space.choices(base.composition)
    return limits.chance(choices, before, base.violations[KEY] / ROOM + 1)


def broken(history: History) -> int:
    return sum(not tried.feasible for tried in history)


@pytest.mark.parametrize("strategy", [Auto, Screened])
def test_what_the_limit_refuses_is_not_tried_first(strategy, foreseen, limited) -> None:
    blind, informed = (
        run(strategy(one), limited_copy(foreseen))
        for one in (replace(foreseen, costs={}), foreseen)
    )
    assert broken(informed) == 0
    assert broken(blind) >= 2, "the largest cuts come first, of every matrix"
    assert informed.best().values >= blind.best().values


def limited_copy(setting: Setting) -> History:
    history = History(setting.max_ranks, 40)
    history.put(Tried(-1, Composition(), "", TrialState.COMPLETE, (0.0,), 1.0))
    history.room = {KEY: ROOM}
    return history


def run(strategy, history: History, count: int = 10) -> History:
    for _ in range(count):
        end(history, strategy.suggest(history))
    return history


def test_a_stronger_cut_of_a_matrix_that_broke_a_floor_is_skipped(setting, limited) -> None:
    """Without any prediction, of whatever floor."""
    limits = Limits(setting)
    limited.room = {"arc.limit": ROOM}
    assert chance(setting, limits, "3.fc_in=0.2") == 1.0, "no floor, as far as is known"
    tried = end(limited, parse("3.fc_in=0.2"))
    limited.put(replace(tried, violations={"arc.limit": 0.001}))
    limits.learn(limited)
    found = [chance(setting, limits, f"3.fc_in={rho}") for rho in (0.9, 0.6, 0.2, 0.05)]
    assert found[2:] == [0.0, 0.0]
    assert min(found[:2]) > REFUSED, "a milder one may be kept"
    limited.put(replace(tried, number=1, composition=parse("2.fc_in=0.05"), effect="x",
                        violations={"arc.limit": -0.001}))  # fmt: skip
    limits.learn(limited)
    assert chance(setting, limits, "2.fc_in=0.2") == 1.0, "a milder one of what was kept is safe"
    assert REFUSED < chance(setting, limits, "2.fc_in=0.01") < 1
    assert chance(setting, limits, "2.fc_in=0.05", "3.fc_in=0.05") == 0.0


def test_costs_of_a_composition_add_up(foreseen, limited) -> None:
    limits = Limits(foreseen)
    for text, lost in (("0.fc_in=0.2", 0.006), ("2.fc_in=0.2", 0.006), ("2.fc_out=0.2", 0.002)):
        end(limited, parse(text), lost)
    limits.learn(limited)
    base = limited[0]
    assert share_used(base, limited) == pytest.approx(0.6)
    alone = chance(foreseen, limits, "0.fc_in=0.2")
    within = chance(foreseen, limits, "0.fc_in=0.2", "2.fc_out=0.2", base=base)
    beyond = chance(foreseen, limits, "0.fc_in=0.2", "2.fc_in=0.2", base=base)
    all_three = chance(foreseen, limits, "0.fc_in=0.2", "2.fc_in=0.2", "2.fc_out=0.2")
    assert alone == 1.0
    assert within > 0.6 > 0.4 > beyond > all_three


def test_predictions_are_corrected_by_what_was_measured(foreseen, limited) -> None:
    """A screen that sees twenty times too much is believed no longer."""
    wrong = replace(foreseen, costs={cut: 20 * value for cut, value in foreseen.costs.items()})
    limits = Limits(wrong)
    limits.learn(limited)
    before = chance(wrong, limits, "2.fc_out=0.2")
    for text in ("0.fc_in=0.2", "0.fc_out=0.2", "2.fc_in=0.2", "2.fc_in=0.6", "0.fc_in=0.6"):
        end(limited, parse(text))
    limits.learn(limited)
    assert before < REFUSED
    assert chance(wrong, limits, "2.fc_out=0.2") > 0.5


def test_neighbours_that_a_floor_refuses_are_passed_over(foreseen, limited) -> None:
    end(limited, parse("2.fc_in=0.2"))
    end(limited, parse("3.fc_in=0.9"))
    strategy = Refine(foreseen)
    found = []
    for _ in range(12):
        end(limited, composition := strategy.suggest(limited))
        found.append(composition)
    assert "3.fc_in=0.2" not in map(str, found), "a layer up costs too much"
    assert broken(limited) == 0


def test_what_is_learnt_does_not_depend_on_when_it_is_read(foreseen, limited) -> None:
    step, once = Auto(foreseen), limited_copy(foreseen)
    for _ in range(20):
        proposed = step.suggest(once)
        assert str(Auto(foreseen).suggest(once)) == str(proposed)
        end(once, proposed)


def test_a_floor_that_the_unedited_model_breaks_limits_nothing(setting, limited) -> None:
    limited.room = {KEY: -0.1}
    tried = end(limited, parse("3.fc_in=0.2"))
    assert share_used(tried, limited) is None
    limits = Limits(setting)
    limits.learn(limited)
    assert chance(setting, limits, "3.fc_in=0.05") == 1.0


def test_levels_of_other_kinds_say_nothing_of_one_another(setting, limited) -> None:
    limits = Limits(setting)
    end(limited, parse("3.fc_in=0.2"), 0.5)
    limits.learn(limited)
    other = [(setting.space.sites[6], Level.parse("prune/0.05"))]
    assert setting.space.sites[6].name == "3.fc_in" and limits.chance(other) == 0.5
