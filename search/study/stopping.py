"""When a search ends before its number of trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.config import StopConfig
from tasks.metrics import is_perplexity


@dataclass(frozen=True)
class Stopping:
    """The rules of a study. Trials and the time alone decide, so a resumed study decides alike.

    `metric`: what the trials' values are, which says how `target` is meant.
    """

    rules: StopConfig
    metric: str

    def reason(
        self, trials: Sequence[FrozenTrial], baseline: float | None, elapsed_s: float
    ) -> str | None:
        """Why no further trial begins, None if one may. `baseline`: the unedited model's value."""
        rules = self.rules
        if rules.wall_s is not None and elapsed_s >= rules.wall_s:
            return f"after {elapsed_s:.0f} s, as search.stop.wall_s {rules.wall_s:g} asks"
        if rules.target is None and rules.no_gain_trials is None:
            return None
        best, since = _best(trials, -math.inf if baseline is None else baseline)
        if rules.target is not None and best >= self._target(rules.target):
            return f"at the search.stop.target of {rules.target:g}"
        if rules.no_gain_trials is not None and since >= rules.no_gain_trials:
            return (
                f"after {since} trials without a better score, as search.stop.no_gain_trials "
                f"{rules.no_gain_trials} asks"
            )
        return None

    def _target(self, target: float) -> float:
        """The target in units of the score."""
        if not is_perplexity(self.metric):
            return target
        return -math.log(target) if target > 0 else math.inf


def _best(trials: Sequence[FrozenTrial], baseline: float) -> tuple[float, int]:
    """The best value above every floor, and how many trials have finished since it came up."""
    best, since = baseline, 0
    for trial in trials:
        if not trial.state.is_finished():
            continue
        since += 1
        if trial.state != TrialState.COMPLETE or not trial.values:
            continue
        if trial.values[0] > best and all(miss <= 0 for miss in trial.constraints.values()):
            best, since = trial.values[0], 0
    return best, since
