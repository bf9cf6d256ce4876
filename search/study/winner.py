"""Which trial is better, and whether the best one beats the unedited model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import nlargest

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.cuts.composition import Composition
from search.strategies.base import Tried
from search.study.outcomes import Evaluation


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """The pruner of a configuration, over the scores after each chunk of examples."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=8)
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


def not_finite(evaluation: Evaluation) -> str:
    """What is no number in an evaluation, empty if all are."""
    numbers = {"score": evaluation.score, "log-loss": evaluation.log_loss}
    numbers |= {f"score of {task}": score for task, score in evaluation.scores.items()}
    if all(map(math.isfinite, numbers.values())):
        return ""
    return ", ".join(f"{name} {value}" for name, value in numbers.items()) + ": not finite"


def merit(trial: FrozenTrial) -> tuple[float, float, int, int]:
    """Order of trials: score, then lower log-loss, then fewer interventions, then the earlier."""
    size = len(trial.user_attrs["effect"].split())
    return (trial.values[0], -trial.user_attrs["log_loss"], -size, -trial.number)


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps every floor."""
    return all(violation <= 0 for violation in trial.constraints.values())


def score_of(trial: FrozenTrial) -> float | None:
    """What a trial scored, of a pruned one so far; its first value where it has several."""
    return trial.values[0] if trial.values else None


def choose_winner(trials: Iterable[FrozenTrial], baseline: Evaluation | None) -> FrozenTrial | None:
    """The best evaluated trial above every floor, or None if none beats the baseline."""
    return next(iter(choose_finalists(trials, baseline, 1)), None)


def choose_finalists(
    trials: Iterable[FrozenTrial], baseline: Evaluation | None, count: int
) -> list[FrozenTrial]:
    """The best evaluated trials above every floor that beat the baseline, the best first.

    Trials beat the baseline on (score, log-loss).
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE and is_feasible(t)]
    best = nlargest(count, complete, key=merit)
    if baseline is None:
        return best
    return [t for t in best if merit(t)[:2] > (baseline.score, -baseline.log_loss)]


def pareto_front(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The evaluated trials above every floor that no other beats or equals in all values.

    The best score first; of equal values the better by `merit`. All values are maximised.
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE and is_feasible(t)]
    front: list[FrozenTrial] = []
    for trial in sorted(complete, key=lambda t: (tuple(t.values), merit(t)), reverse=True):
        if not any(all(a >= b for a, b in zip(x.values, trial.values, strict=True)) for x in front):
            front.append(trial)
    return front


def composition_of(trial: FrozenTrial) -> Composition:
    """The composition that a trial evaluates."""
    return Composition.parse(trial.user_attrs["composition"].split())


def as_tried(trial: FrozenTrial) -> Tried:
    """A stored trial as strategies see it."""
    complete = trial.state == TrialState.COMPLETE
    return Tried(
        trial.number,
        composition_of(trial),
        trial.user_attrs["effect"],
        trial.state,
        tuple(trial.values) if complete else (),
        trial.user_attrs.get("log_loss", 0.0),
        tuple(sorted(trial.intermediate_values.items())),
        dict(trial.constraints) if complete else {},
    )
