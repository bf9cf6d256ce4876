"""The default: singles as a screen predicts them, put together and refined (decision 0016)."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.extensions import Extensions
from search.strategies.finished import Finished
from search.strategies.limits import Limits, share_used
from search.strategies.novelty import unseen
from search.strategies.refine import Refine
from search.strategies.singles import Singles


@dataclass(frozen=True)
class Shares:
    """How the budget is divided.

    `singles`: the share that begins with single cuts alone, at least `fewest`. Then `cycle` tells
    the trials apart, over and over. `last`: the share at the end that tries no new singles.
    `bases`: the best trials that are extended.
    """

    singles: float = 0.05
    fewest: int = 10
    cycle: str = "ERES"  # Extend, Refine, Single
    last: float = 0.2
    bases: int = 5


class Auto(Strategy):
    """Single cuts as the screen predicts them; then extensions and refinements of the best.

    An *extension* adds to one of the best trials a single cut that helped alone: the pair whose
    gains add up to most comes first. A *refinement* differs from the best by one step. Further
    singles are tried in between, so that a screen that is wrong costs time alone. Without a screen
    singles go from coarse to fine. What the floors will hardly allow is left for the end.
    """

    name = "auto"
    wants_screen = True
    takes_budget = True

    def __init__(self, setting: Setting, shares: Shares = Shares()) -> None:
        """Over the space of `setting`."""
        self._setting = setting
        self._shares = shares
        self._limits = Limits(setting)
        self._singles = Singles(setting, self._limits)
        self._extensions = Extensions(setting.space, self._limits, shares.bases)
        self._refine = Refine(setting, self._limits)
        self._moves = {
            "S": self._singles.next,
            "E": self._extensions.next,
            "R": self._refine.suggest,
        }
        self._finished = Finished()

    def suggest(self, history: History) -> Composition | None:
        """The next single, extension or refinement."""
        number, budget, shares = len(history), history.budget, self._shares
        if number < max(shares.fewest, shares.singles * budget):
            turns = "SER"
        else:
            turn = shares.cycle[number % len(shares.cycle)]
            if turn == "S" and number >= (1 - shares.last) * budget:
                turn = "E"
            turns = turn + "ERS"
        self._learn(history)
        for turn in turns:
            if (proposed := self._moves[turn](history)) is not None:
                return proposed
        return unseen(self._setting.space, history, self._setting.seed)

    def _learn(self, history: History) -> None:
        self._limits.learn(history)
        if history.baseline is None:
            return
        for tried in self._finished.next(history):
            if tried.counts:
                self._note(tried, history.baseline, history)
            elif tried.state == TrialState.PRUNED:
                self._note_stopped(tried, history.baseline)

    def _note(self, tried: Tried, baseline: Tried, history: History) -> None:
        space = self._setting.space
        choices = space.choices(tried.composition)
        gain = (tried.merit[0] - baseline.merit[0], tried.merit[1] - baseline.merit[1])
        if choices is None or gain <= (0, 0):
            return
        if len(choices) == 1:
            self._extensions.add_single(tried.number, choices[0], gain)
        if len(choices) < space.max_interventions:
            used = share_used(tried, history) or 0.0
            self._extensions.add_base(tried.number, choices, gain, used)

    def _note_stopped(self, tried: Tried, baseline: Tried) -> None:
        """What a single cut had won when it was stopped: it may help the best, to which it lost.

        Questions that it was not asked count as unchanged, and of its log-loss nothing is known.
        """
        choices = self._setting.space.choices(tried.composition)
        before = dict(baseline.steps)
        if choices is None or len(choices) != 1 or not before or not tried.steps:
            return
        step, score = max(tried.steps)
        if tried.soft_score is not None:
            gained = tried.soft_score - baseline.ranked_by
        elif step in before:
            gained = (score - before[step]) * step / max(before)
        else:
            return
        if gained > 0:
            self._extensions.add_single(tried.number, choices[0], (gained, 0.0))
