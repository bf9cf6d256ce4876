"""Where a study stands, from its trials alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from optuna.trial import TrialState

from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.trials import TrialRecord
from search.study.winner import Decision, best_by_share, choose_winner, pareto_front


@dataclass(frozen=True)
class Summary:
    """Counts of a study's trials; `finished` = complete + pruned + failed.

    `rate_per_s` is that of the last finished trials, without the time between runs, 0 if unknown.
    `winner` is the best trial if it beats the baseline, `best` the best trial in any case, both
    among those that keep every floor; `infeasible` counts the complete ones that do not.
    `ended`: why no trial begins although more are asked for, empty if one may. `front`: of a study
    of score and size, the trials that none beats in both. `by_share`: within a budget, the best
    trial of each share of the parameters, the largest share first. `failures` counts the failed by
    reason, `failure_kinds` by kind of reason (timeout, out of memory, not finite, worker died,
    error), the commonest first. `recent` are the last finished trials, the latest first. `wall_s`:
    seconds of wall time by phase (see `search.study.wall_time`), over all runs; empty if none is
    recorded.
    """

    asked: int
    complete: int
    pruned: int
    failed: int
    running: int
    failures: dict[str, int]
    failure_kinds: dict[str, int]
    rate_per_s: float
    best: TrialRecord | None
    winner: TrialRecord | None
    baseline: Evaluation | None
    objective: Objective
    infeasible: int = 0
    ended: str = ""
    front: tuple[TrialRecord, ...] = ()
    by_share: Mapping[float, TrialRecord] = field(default_factory=dict)
    recent: tuple[TrialRecord, ...] = ()
    wall_s: Mapping[str, float] = field(default_factory=dict)

    def shortfall(self, wanted: int) -> list[str]:
        """Why there are fewer trials than the `wanted` of study.yaml, empty if there are not."""
        if self.ended and self.finished < self.asked:
            return [f"the search ended after {self.finished} of {wanted} trials: {self.ended}"]
        if self.asked < wanted:
            return [
                f"the space contains only {self.asked} compositions with different effects, fewer "
                f"than the {wanted} trials asked for"
            ]
        return []

    @property
    def baseline_text(self) -> str:
        """The unedited model on validation as people read it, empty while it is not known."""
        if self.baseline is None:
            return ""
        return self.objective.text(self.baseline.score, self.baseline.scores)

    @property
    def best_text(self) -> str:
        """The best trial's value as people read it, empty while there is none."""
        if self.best is None or (score := self.best.score) is None:
            return ""
        return self.objective.text(score, self.best.scores)

    @property
    def finished(self) -> int:
        """Trials that count against the number asked for."""
        return self.complete + self.pruned + self.failed

    @property
    def left_s(self) -> float | None:
        """Seconds until the number asked for is reached, at the present rate."""
        return (self.asked - self.finished) / self.rate_per_s if self.rate_per_s else None


def summarise(
    trials: Sequence[TrialRecord],
    baseline: Evaluation | None,
    asked: int,
    objective: Objective,
    *,
    ended: str = "",
    chosen: Decision | None = None,
    wall_s: Mapping[str, float] | None = None,
    shares: Sequence[float] = (),
) -> Summary:
    """Count trials. `chosen`: what a confirmation part made the winner, if it was asked.

    `shares`: those of a budget.
    """
    states = Counter(trial.state for trial in trials)
    failed = [t for t in trials if t.state == TrialState.FAIL]
    feasible = [t for t in trials if t.counts]
    best = max(feasible, key=lambda trial: trial.merit, default=None)
    return Summary(
        asked=asked,
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        running=states[TrialState.RUNNING],
        failures=_count("?" if t.reason is None else t.reason for t in failed),
        failure_kinds=_count("error" if t.failure is None else t.failure for t in failed),
        rate_per_s=_rate(trials[-50:]),
        best=best,
        winner=choose_winner([best] if best else [], baseline, objective)
        if chosen is None
        else chosen.winner,
        baseline=baseline,
        recent=_recent(trials),
        objective=objective,
        infeasible=states[TrialState.COMPLETE] - len(feasible),
        ended=ended,
        wall_s=wall_s or {},
        by_share=best_by_share(trials, shares) if shares else {},
        front=tuple(pareto_front(trials)) if best is not None and len(best.values) > 1 else (),
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _recent(trials: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    ended = [trial for trial in trials[-200:] if trial.finished is not None]
    ended.sort(key=lambda trial: (trial.finished, trial.number), reverse=True)
    return tuple(ended[:6])


def _rate(trials: Sequence[TrialRecord]) -> float:
    ends = sorted(trial.finished for trial in trials if trial.finished)
    if len(ends) < 2:
        return 0.0
    gaps = sorted((b - a).total_seconds() for a, b in pairwise(ends))
    longest = 20 * gaps[len(gaps) // 2]  # longer gaps are interruptions, not work
    span_s = sum(gap for gap in gaps if gap <= longest)
    return len(gaps) / span_s if span_s > 0 else 0.0
