"""What `auto` keeps between two trials changes nothing: the plain way chooses the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.space import overlap
from search.strategies.auto import Auto, Shares
from search.strategies.base import History, Setting, Tried
from search.strategies.limits import LIKELY, REFUSED, Limits, share_used
from search.strategies.novelty import unseen
from search.strategies.refine import neighbours
from search.strategies.singles import by_screen, predicted
from tasks.guarded import GENERAL_TEXT

KEY, ROOM = f"{GENERAL_TEXT}.worse_by", 0.01


def plain(setting: Setting, history: History, shares: Shares) -> Composition | None:
    """The next trial of `auto`, everything reckoned anew (decisions 0016 and 0037)."""
    limits, number, budget = Limits(setting), len(history), history.budget
    limits.learn(history)
    moves = {"S": single, "E": extension, "R": refinement}
    turns = "SER"
    if number >= max(shares.fewest, shares.singles * budget):
        turn = shares.cycle[number % len(shares.cycle)]
        late = turn == "S" and number >= (1 - shares.last) * budget
        turns = ("E" if late else turn) + "ERS"
    for turn in turns:
        for proposed in moves[turn](setting, history, limits):
            if history.is_new(proposed):
                return proposed
    return unseen(setting.space, history, setting.seed)


def single(setting: Setting, history: History, limits: Limits) -> Iterator[Composition]:
    def rank(choice) -> tuple[int, float]:
        chance, gain = limits.chance([choice]), -predicted(choice, setting.screen)
        return (chance < LIKELY) + (chance < REFUSED), -(gain * chance if gain > 0 else gain)

    for choice in sorted(by_screen(setting.space, setting.screen), key=rank):
        yield setting.space.cut([choice])


def extension(setting: Setting, history: History, limits: Limits) -> Iterator[Composition]:
    baseline, helped, good, pairs = history.baseline, [], [], []
    for tried in history:
        choices = setting.space.choices(tried.composition)
        gain = (0.0, 0.0)
        if tried.counts:
            gain = tuple(a - b for a, b in zip(tried.merit, baseline.merit, strict=True))
            if gain > (0, 0) and len(choices) < setting.space.max_interventions:
                good.append((gain, -tried.number, choices))
        elif tried.state == TrialState.PRUNED:
            step, score = tried.steps[-1]
            before = dict(baseline.steps)
            gain = ((score - before[step]) * step / max(before), 0.0)
        if gain > (0, 0) and len(choices) == 1:
            helped.append((gain, choices[0]))
    for known, number, choices in sorted(good, key=lambda one: one[:2], reverse=True)[:5]:
        used = share_used(history[-number], history) or 0.0
        for gain, choice in helped:
            both = [*choices, choice]
            chance = limits.chance(both, choices, used)
            if chance >= REFUSED and not overlap(choice[0], choices):
                sums = (chance * (known[0] + gain[0]), chance * (known[1] + gain[1]))
                pairs.append((sums, number, both))
    for _, _, choices in sorted(pairs, key=lambda pair: pair[:2], reverse=True):
        yield setting.space.cut(choices)


def refinement(setting: Setting, history: History, limits: Limits) -> Iterator[Composition]:
    counted = [tried for tried in history if tried.counts]
    for base in sorted(counted, key=lambda tried: tried.merit, reverse=True):
        choices, used = setting.space.choices(base.composition), share_used(base, history) or 0.0
        for near in neighbours(setting.space, choices, f"{setting.seed}/{base.number}"):
            if limits.chance(near, choices, used) >= REFUSED:
                yield setting.space.cut(near)


def ended(history: History, number: int, score: float, lost: float | None, best: float) -> Tried:
    """A trial with hits of ten questions; one that is below the best is stopped half-way."""
    known = history[number]
    facts = (number, known.composition, known.effect)
    hits = round(10 * score) / 10
    if hits < best:
        return Tried(*facts, TrialState.PRUNED, steps=((1, hits),))
    kept = {} if lost is None else {KEY: lost - ROOM}
    return Tried(*facts, TrialState.COMPLETE, (hits,), 1 - score, violations=kept)


def cost(composition: Composition) -> float:
    """Nats of general text that a composition loses; the last layers' cuts break the limit."""
    return sum((1 + i.matrix.layer) * 0.003 * (1 - i.rule.value) for i in composition.interventions)


@pytest.mark.parametrize("races", [False, True], ids=["whole", "race"])
@pytest.mark.parametrize("limited", [False, True], ids=["free", "limit"])
def test_auto_chooses_what_the_plain_way_chooses(setting, new_history, land, limited, races):
    if limited:
        cuts = [Intervention(r, v) for r in setting.space.matrices for v in setting.space.levels]
        foreseen = {cut: 2 * cost(Composition((cut,))) for cut in cuts}
        setting = replace(setting, costs=foreseen)
    history, shares = new_history(100), Shares(fewest=12)
    history.put(replace(history.baseline, steps=((1, 0.0), (2, 0.0))))
    history.room = {KEY: ROOM} if limited else {}
    auto, best = Auto(setting, shares), 0.0
    stopped = broken = 0
    for number in range(100):
        chosen = auto.suggest(history)
        assert str(chosen) == str(plain(setting, history, shares)), f"trial {number}"
        history.put(Tried(number, chosen, history.effect(chosen)))
        if len(history.in_flight) == 5:
            other = history.in_flight[number % 3]
            composition = history[other].composition
            lost = cost(composition) if limited else None
            tried = ended(history, other, land.score(composition), lost, best if races else -9.0)
            best = max(best, tried.values[0] if tried.counts else best)
            stopped += tried.state == TrialState.PRUNED
            broken += not tried.feasible
            history.put(tried)
    assert (stopped > 10) == races
    assert (broken > 3) == limited
