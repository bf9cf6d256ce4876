"""One trial as its study has it on record, and the names under which Optuna stores it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.cuts.composition import Composition, Intervention, brief
from search.cuts.refs import MatrixRef
from search.strategies.base import Tried
from tasks.errors import InputError

COMPOSITION = "composition"
EFFECT = "effect"
LOG_LOSS = "log_loss"
SOFT_SCORE = "soft_score"
"""Where trials are ranked by it (see `Objective.soft_score`)."""
SECONDS = "seconds"
SCORES = "scores"
"""Where there are several tasks, or general text with a limit."""
KEPT = "kept"
REASON = "reason"
FAILURE = "failure"
DEATHS = "deaths"
"""Of workers that evaluated it."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial; `text` is its composition as recorded, `effect` what that does to the model.

    `values` is what is maximised, of a pruned trial its score so far, `log_loss` in nats, `scores`
    every task's mean score by label where there are several, and that of general text (minus the
    mean negative log-likelihood per token) where it has a limit. `soft_score`: what it is ranked by
    in place of the score (see `Objective.soft_score`); of one that a race stopped, with the
    unedited model's answers to the questions that it was not asked. `kept`: the share of the
    parameters of the model's matrices, within a budget of the space's, that is kept. `seconds` says
    where the time went. `reason` and `failure`: why it failed, and which kind of reason that is.
    `steps`: the score after each number of chunks. `violations`: how far each floor is missed, not
    above 0 where it is kept. None: not on record. `frozen`: what it was read from, for what speaks
    to Optuna.
    """

    frozen: FrozenTrial = field(repr=False, compare=False)
    number: int
    state: TrialState
    text: str = ""
    effect: str = ""
    values: tuple[float, ...] = ()
    log_loss: float | None = None
    soft_score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    kept: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    failure: str | None = None
    steps: Mapping[int, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None

    @staticmethod
    def of(trial: FrozenTrial) -> TrialRecord:
        """What Optuna has stored of a trial."""
        stored = trial.user_attrs
        return TrialRecord(
            frozen=trial,
            number=trial.number,
            state=trial.state,
            text=str(stored.get(COMPOSITION, "")),
            effect=str(stored.get(EFFECT, "")),
            values=tuple(trial.values or ()),
            log_loss=stored.get(LOG_LOSS),
            soft_score=stored.get(SOFT_SCORE),
            scores=stored.get(SCORES, {}),
            kept=stored.get(KEPT),
            seconds=stored.get(SECONDS, {}),
            reason=stored.get(REASON),
            failure=stored.get(FAILURE),
            steps=dict(trial.intermediate_values),
            violations=dict(trial.constraints),
            params=trial.params,
            started=trial.datetime_start,
            finished=trial.datetime_complete,
        )

    @cached_property
    def composition(self) -> Composition:
        """What it evaluates. Raises InputError where its text is no composition."""
        return Composition.parse(self.text.split())

    @property
    def cuts(self) -> tuple[Intervention, ...]:
        """The interventions of its composition; none where its text is no composition."""
        try:
            return self.composition.interventions
        except InputError:
            return ()

    @property
    def brief(self) -> str:
        """Its composition as views have room for it."""
        return brief(self.text, self.kept)

    @property
    def further(self) -> dict[str, Any]:
        """What is stored beside composition, effect, log-loss, soft score and reason, by key."""
        own = (COMPOSITION, EFFECT, LOG_LOSS, SOFT_SCORE, REASON)
        return {k: v for k, v in self.frozen.user_attrs.items() if k not in own}

    @property
    def complete(self) -> bool:
        """Whether it was evaluated to the end."""
        return self.state == TrialState.COMPLETE

    @property
    def feasible(self) -> bool:
        """Whether every floor is kept, as far as is known."""
        return all(violation <= 0 for violation in self.violations.values())

    @property
    def counts(self) -> bool:
        """Whether it was evaluated to the end and keeps every floor."""
        return self.complete and self.feasible

    @property
    def score(self) -> float | None:
        """What it scored, of a pruned one so far; its first value where it has several."""
        return self.values[0] if self.values else None

    @property
    def merit(self) -> tuple[float, float, int, int]:
        """Order of complete trials: soft score or score, lower log-loss, fewer cuts, earlier."""
        size = len(self.effect.split())
        first = self.values[0] if self.soft_score is None else self.soft_score
        return (first, -(self.log_loss or 0.0), -size, -self.number)

    def tried(self) -> Tried:
        """As strategies see it."""
        return Tried(
            self.number,
            self.composition,
            self.effect,
            self.state,
            self.values if self.complete else (),
            self.log_loss or 0.0,
            tuple(sorted(self.steps.items())),
            self.violations if self.complete else {},
            self.soft_score,
        )


def kept_share(
    composition: Composition,
    shapes: Mapping[MatrixRef, tuple[int, ...]],
    spectra: Mapping[MatrixRef, Sequence[float]] | None = None,
) -> float:
    """Parameters kept of all matrices in `shapes` [out, in], as a share.

    Each kind says what it stores. Rules that read a spectrum count whole where `spectra`, singular
    values descending, lacks the matrix.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    saved = 0.0
    for cut in composition.interventions:
        shape, spectrum = shapes[cut.matrix], (spectra or {}).get(cut.matrix)
        saved += math.prod(shape) - cut.made_by.stored(cut.rule, shape, spectrum)
    return 1 - saved / total
