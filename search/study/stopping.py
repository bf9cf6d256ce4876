"""When a search ends before its number of trials."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from search.sections import StopConfig
from search.strategies.base import Tried
from tasks.metrics import is_perplexity


@dataclass(frozen=True)
class Stopping:
    """The rules of a study. Trials and the time alone decide, so a resumed study decides alike.

    `metric`: what the trials' values are, which says how `target` is meant.
    """

    rules: StopConfig
    metric: str

    def reason(
        self, trials: Iterable[Tried], baseline: Tried | None, elapsed_s: float
    ) -> str | None:
        """Why no further trial begins, None if one may. `baseline`: the unedited model."""
        rules = self.rules
        if rules.wall_s is not None and elapsed_s >= rules.wall_s:
            return f"search.stop.wall_s is {rules.wall_s:g}, and {elapsed_s:.0f} s have passed"
        if rules.target is None and rules.no_gain_trials is None:
            return None
        best, since = _best(trials, baseline)
        if rules.target is not None and best >= self._target(rules.target):
            return f"the search.stop.target of {rules.target:g} is reached"
        if rules.no_gain_trials is not None and since >= rules.no_gain_trials:
            return (
                f"search.stop.no_gain_trials is {rules.no_gain_trials}, and none of the last "
                f"{since} scored better"
            )
        return None

    def _target(self, target: float) -> float:
        """The target in units of the score."""
        if not is_perplexity(self.metric):
            return target
        return -math.log(target) if target > 0 else math.inf


def _best(trials: Iterable[Tried], baseline: Tried | None) -> tuple[float, int]:
    """The best score above every floor, and how many trials have finished without a better one.

    Better is what is ranked higher.
    """
    score = -math.inf if baseline is None else baseline.values[0]
    rank = -math.inf if baseline is None else baseline.ranked_by
    since = 0
    for trial in trials:
        if not trial.state.is_finished():
            continue
        since += 1
        if trial.counts:
            score = max(score, trial.values[0])
        if trial.merit[0] > rank:
            rank, since = trial.merit[0], 0
    return score, since
