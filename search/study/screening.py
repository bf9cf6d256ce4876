"""The screen of a study: made in pieces by whichever workers there are, added up in one order.

A piece is the slope of the loss on some of the questions, or of the general text. Which examples
are in it does not depend on the workers, so neither does the sum. Each is an evaluation of its own
until the whole is recorded, so a piece that was made is not made again after an interruption.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from search.cuts.composition import Composition, Intervention
from search.study.jobs import SCREEN, Job
from search.study.objective import Objective
from search.study.outcomes import Evaluation, no_screen
from tasks.base import Outcome
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT

SCREENED_EXAMPLES = 100
"""Questions of validation that a screen reads."""

QUESTION_PIECES = 4
"""Pieces that these are divided into."""

COSTED_PARTS = 8
"""Parts of the general text whose slopes are taken one by one."""

T = TypeVar("T")


@dataclass(frozen=True)
class Slopes:
    """Of some examples of one task: how their mean log-loss changes towards every cut, in nats.

    To first order. `weight`: what these examples weigh among all of the task.
    """

    task: str
    weight: float
    by_cut: Mapping[Intervention, float]

    def outcomes(self) -> tuple[Outcome, ...]:
        """As rows of an evaluation, whose score is the gain."""
        return tuple(
            Outcome(
                str(Composition((cut,))),
                str(cut.matrix),
                -slope,
                0.0,
                None,
                weight=self.weight,
                task=self.task,
            )
            for cut, slope in self.by_cut.items()
        )

    @staticmethod
    def read(evaluation: Evaluation) -> list[Slopes]:
        """What `outcomes` of one task or several say, to the bit."""
        rows: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in evaluation.outcomes:
            rows[outcome.task or ""].append(outcome)
        return [
            Slopes(
                task,
                found[0].weight,
                {Intervention.parse(one.example_id): -one.score for one in found},
            )
            for task, found in rows.items()
        ]


def is_text(piece: int) -> bool:
    """Whether a piece is of general text; the first ones are of the questions."""
    return piece >= QUESTION_PIECES


def own_share(piece: int, questions: Sequence[T], texts: Sequence[T]) -> Sequence[T]:
    """What of the questions, in the order that trials see them, or of the texts is in a piece."""
    if is_text(piece):
        return texts[piece - QUESTION_PIECES :: COSTED_PARTS]
    return questions[:SCREENED_EXAMPLES][piece::QUESTION_PIECES]


def mean_changes(found: Sequence[Slopes], objective: Objective) -> dict[Intervention, float]:
    """Predicted change of the mean log-loss by cut; of several tasks the objective's mean.

    Raises InputError if nothing that was asked has a log-probability.
    """
    if not any(any(one.by_cut.values()) for one in found):
        raise InputError(
            "the questions have no answer whose log-probability is differentiable; "
            "use a strategy that does not screen"
        )
    tasks: dict[str, list[Slopes]] = defaultdict(list)
    for one in found:
        tasks[one.task].append(one)
    means = {
        task: {
            cut: math.fsum(one.weight * one.by_cut[cut] for one in own)
            / math.fsum(one.weight for one in own)
            for cut in own[0].by_cut
        }
        for task, own in tasks.items()
    }
    return {
        cut: objective.mean({task: mean[cut] for task, mean in means.items()})
        for cut in found[0].by_cut
    }


def mean_costs(found: Sequence[Slopes]) -> dict[Intervention, float]:
    """Predicted rise of the mean log-loss of general text by cut; nothing of no text.

    The slope, and half of its mean square per token: of several parts of the text, each with its
    tokens n and slope s of their mean, sum((n s)^2) / (2 sum(n)).
    """
    tokens = math.fsum(one.weight for one in found)
    return {
        cut: math.fsum(
            one.weight * one.by_cut[cut] + (one.weight * one.by_cut[cut]) ** 2 / 2 for one in found
        )
        / tokens
        for cut in (found[0].by_cut if found else ())
    }


class Screening:
    """What there is of a study's screen, and what is still to be made."""

    def __init__(
        self,
        study_id: str,
        objective: Objective,
        candidates: Callable[[], tuple[Intervention, ...]],
        read: Callable[[str], Evaluation | None],
    ) -> None:
        """`candidates` says which cuts are predicted; `read` finds an evaluation by its name."""
        self._study_id = study_id
        self._objective = objective
        self._candidates = candidates
        self._read = read
        self._made: dict[str, Evaluation] = {}
        count = QUESTION_PIECES + (0 if objective.guard is None else COSTED_PARTS)
        self.names = {f"{SCREEN}-{piece:02d}": piece for piece in range(count)}
        """The pieces, by the names of their evaluations."""

    def recall(self) -> Evaluation | None:
        """The whole screen, where it was made; else what pieces there are is remembered."""
        if (whole := self._read(SCREEN)) is not None:
            return whole
        found = {name: self._read(name) for name in self.names}
        self._made = {name: one for name, one in found.items() if one is not None}
        return None

    def jobs(self) -> Iterator[Job]:
        """The pieces that are not made."""
        missing = [name for name in self.names if name not in self._made]
        cuts = self._candidates() if missing else ()
        for name in missing:
            yield Job(name, Composition(), "", "screen", screened=cuts, piece=self.names[name])

    def put(self, evaluation: Evaluation) -> None:
        """Remember a piece that is recorded."""
        self._made[evaluation.name] = self._read(evaluation.name) or evaluation

    def whole(self) -> Evaluation | None:
        """The screen, once all pieces are made: an outcome for every cut, whose score is the gain.

        Where general text has a limit, its predicted rise of log-loss there is a measure of it. A
        screen that predicts nothing if nothing that was asked has a log-probability.
        """
        if len(self._made) < len(self.names):
            return None
        found: dict[bool, list[Slopes]] = {False: [], True: []}
        for name, piece in self.names.items():
            found[is_text(piece)] += Slopes.read(self._made[name])
        try:
            changes = mean_changes(found[False], self._objective)
        except InputError as error:
            return no_screen(self._study_id, str(error))
        costs = mean_costs(found[True])
        outcomes = tuple(
            Outcome(
                str(Composition((cut,))),
                str(cut.matrix),
                -change,
                0.0,
                None,
                measures={GENERAL_TEXT: costs[cut]} if costs else {},
            )
            for cut, change in changes.items()
        )
        seconds = {"total": math.fsum(one.seconds.get("total", 0) for one in self._made.values())}
        return Evaluation(
            SCREEN, self._study_id, "", "", "screen", 0.0, 0.0, seconds, outcomes=outcomes
        )
