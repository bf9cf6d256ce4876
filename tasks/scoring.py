"""Summaries of outcomes: one model's scores, and a breakdown by a column of the data."""

from __future__ import annotations

import math
import operator
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tasks.base import Column, Example, Outcome
from tasks.calibration import further_scores
from tasks.comparison import Comparison, compare
from tasks.errors import InputError, nearest

__all__ = [
    "Comparison",
    "Scores",
    "breakdown",
    "by_task",
    "compare",
    "mean",
    "mean_log_loss",
    "mean_score",
    "summarise",
]

TAKEOVER = 0.95
"""Share of one prediction above which a score says more about the answer than about the model."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a set of examples was answered.

    All means are weighted by the outcomes. `n`: examples. `score`: mean score, the accuracy where
    scores are 0 or 1. `log_loss`: minus the mean log-probability of the right answer, in nats.
    `balanced_accuracy`: mean over classes of the mean score in the class, None where the examples
    have no classes in common. `majority_baseline`: score of always giving the commonest right
    answer, None where scores are not 0 or 1. `top_prediction`, `top_share`: the most frequent
    prediction and its share of all, None and 0 where nothing is predicted. `measures`: means of the
    outcomes' further values. `further`: what outcomes say beyond that, see
    `tasks.calibration.further_scores`. `tied`: share of the examples on which several answers tied
    at the top; `tied_score`: what they add to `score`, whose rest was earned without a tie.
    """

    n: int
    score: float
    log_loss: float
    balanced_accuracy: float | None
    majority_baseline: float | None
    top_prediction: str | None
    top_share: float
    measures: dict[str, float] = field(default_factory=dict)
    further: dict[str, float] = field(default_factory=dict)
    tied: float = 0.0
    tied_score: float = 0.0

    @property
    def ties(self) -> bool:
        """Whether so many answers tie that a score says little: more than 5 %."""
        return self.tied > TIES

    @property
    def untied_score(self) -> float:
        """What was earned without a tie."""
        return self.score - self.tied_score

    @property
    def degenerate(self) -> bool:
        """Whether one prediction has taken over: more than 95 % of all."""
        return self.top_share > TAKEOVER


TIES = 0.05
"""Share of tied answers above which they are warned of."""


def mean(values: Iterable[float], weights: Sequence[float]) -> float:
    """Weighted mean, the same to the last bit in any order."""
    return math.fsum(map(operator.mul, values, weights)) / math.fsum(weights)


def mean_score(outcomes: Collection[Outcome]) -> float:
    """Weighted mean score: what a search maximises."""
    return mean((o.score for o in outcomes), [o.weight for o in outcomes])


def by_task(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes apart by task, the label empty where there is one task."""
    parts: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        parts[outcome.task or ""].append(outcome)
    return parts


def quadratic_score(outcome: Outcome) -> float:
    """How good the probabilities of the answers are, at most 1: one less the Brier score.

    Of an open answer its own probability p alone is known: 1 - (1 - p)^2, which is 2 p where p is
    small. A rule is proper if saying what one believes scores best; accuracy alone and p alone
    are not: p rises with every model that is surer of all it says (Gneiting and Raftery 2007).
    """
    if outcome.brier is not None:
        return 1 - outcome.brier
    return 1 - (1 - math.exp(outcome.log_probability)) ** 2


def mean_quadratic_score(outcomes: Collection[Outcome]) -> float:
    """Weighted mean of `quadratic_score`."""
    return mean(map(quadratic_score, outcomes), [o.weight for o in outcomes])


def mean_log_loss(outcomes: Sequence[Outcome]) -> float:
    """Minus the weighted mean log-probability of the right answers, in nats."""
    return -mean((o.log_probability for o in outcomes), [o.weight for o in outcomes])


def summarise(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> Scores:
    """Summarise `outcomes` of `examples`, which are matched by id and may come in any order.

    Raises ValueError when there are none, or an outcome's example is missing.
    """
    if not outcomes:
        raise ValueError("no outcomes to summarise")
    by_id = {example.id: example for example in examples}
    asked = [by_id[outcome.example_id] for outcome in outcomes]
    scores = [outcome.score for outcome in outcomes]
    answers = Counter(_answer(example) for example in asked)
    # A tie earns 1/k, or 0 where the right answer is not among those that tie.
    binary = all(o.score in (0.0, 1.0) or o.tied > 1 for o in outcomes)
    tied = [o.score if o.tied > 1 else 0.0 for o in outcomes]
    said = Counter(outcome.prediction for outcome in outcomes if outcome.prediction is not None)
    prediction, times = min(said.items(), key=lambda p: (-p[1], p[0]), default=(None, 0))
    return Scores(
        n=len(outcomes),
        score=mean_score(outcomes),
        log_loss=mean_log_loss(outcomes),
        balanced_accuracy=_balanced(asked, scores),
        majority_baseline=max(answers.values()) / len(outcomes) if binary else None,
        top_prediction=prediction,
        top_share=times / len(outcomes),
        measures=_measures(outcomes),
        further=further_scores(outcomes),
        tied=sum(o.tied > 1 for o in outcomes) / len(outcomes),
        tied_score=mean(tied, [o.weight for o in outcomes]),
    )


def breakdown(
    outcomes: Sequence[Outcome], examples: Sequence[Example], column: str
) -> dict[Column, Scores]:
    """Summarise apart the examples that have one value of `column`, the commonest value first.

    Examples without the column are left out. Raises InputError when none has it.
    """
    by_id = {example.id: example for example in examples}
    parts: dict[Column, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        columns = by_id[outcome.example_id].columns
        if column in columns:
            parts[columns[column]].append(outcome)
    if not parts:
        known = sorted({name for example in examples for name in example.columns})
        raise InputError(
            f"column {column!r} is not in the data{nearest(column, known)}; "
            f"it has {', '.join(known) or 'no further columns'}"
        )
    ordered = sorted(parts.items(), key=lambda part: (-len(part[1]), str(part[0])))
    return {value: summarise(found, examples) for value, found in ordered}


def _measures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean of every measure over the outcomes that have it."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.measures)
    having = {name: [o for o in outcomes if name in o.measures] for name in names}
    return {
        name: mean((o.measures[name] for o in found), [o.weight for o in found])
        for name, found in having.items()
    }


def _answer(example: Example) -> str | int:
    """What a constant answer would have to be: the class, or the place among own choices."""
    if example.label is not None and example.choices:
        return example.label
    return example.answer


def _balanced(asked: Sequence[Example], scores: Sequence[float]) -> float | None:
    if any(example.label is None for example in asked):
        return None
    if len({example.choices for example in asked}) > 1:
        return None
    classes: dict[str, list[float]] = defaultdict(list)
    for example, score in zip(asked, scores, strict=True):
        classes[example.answer].append(score)
    return math.fsum(math.fsum(found) / len(found) for found in classes.values()) / len(classes)
