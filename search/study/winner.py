"""Which trials are best, and whether they beat the unedited model."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest

from search.study.outcomes import Evaluation
from search.study.trials import TrialRecord


def choose_winner(trials: Iterable[TrialRecord], baseline: Evaluation | None) -> TrialRecord | None:
    """The best evaluated trial above every floor, or None if none beats the baseline."""
    return next(iter(choose_finalists(trials, baseline, 1)), None)


def choose_finalists(
    trials: Iterable[TrialRecord], baseline: Evaluation | None, count: int
) -> list[TrialRecord]:
    """The best evaluated trials above every floor that beat the baseline, the best first.

    Trials beat the baseline on (score, log-loss).
    """
    best = nlargest(count, (t for t in trials if t.counts), key=lambda trial: trial.merit)
    if baseline is None:
        return best
    return [t for t in best if t.merit[:2] > (baseline.score, -baseline.log_loss)]


def pareto_front(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The evaluated trials above every floor that no other beats or equals in all values.

    The best score first; of equal values the better by `merit`. All values are maximised.
    """
    front: list[TrialRecord] = []
    candidates = [trial for trial in trials if trial.counts]
    for trial in sorted(candidates, key=lambda t: (t.values, t.merit), reverse=True):
        if not any(all(a >= b for a, b in zip(x.values, trial.values, strict=True)) for x in front):
            front.append(trial)
    return front
