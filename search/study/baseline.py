"""The unedited model, as what strategies know of it."""

from __future__ import annotations

from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.strategies.base import BASELINE_NUMBER, Tried
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.race import seeded_order
from tasks.scoring import mean_score


def baseline_tried(evaluation: Evaluation, chunks: int, objective: Objective) -> Tried:
    """The evaluation of the unedited model as a trial, with what it scored after each chunk."""
    return Tried(
        BASELINE_NUMBER,
        Composition(),
        "",
        TrialState.COMPLETE,
        (evaluation.score,),
        evaluation.log_loss,
        _steps(evaluation, chunks, objective),
        soft_score=objective.soft_score(evaluation),
    )


def _steps(
    evaluation: Evaluation, chunks: int, objective: Objective
) -> tuple[tuple[int, float], ...]:
    """What an evaluation of one task scored after each chunk that trials report."""
    if chunks < 2 or not objective.single:
        return ()
    order = sorted(evaluation.outcomes, key=lambda one: seeded_order(one.example_id))
    ends = [-(-len(order) * step // chunks) for step in range(1, chunks + 1)]
    return tuple((n, mean_score(order[:end])) for n, end in enumerate(ends, 1) if end)
