"""A study's trials: each begun in one write, and ended with all that became of it.

What is stored of a trial is told to the strategies' history at once, so both say the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from optuna.trial import FrozenTrial, Trial, TrialState

from search.cuts.composition import Composition
from search.strategies.base import History
from search.strategies.parameters import Parameters
from search.study.disputes import disputed
from search.study.objective import Objective
from search.study.optuna_study import OptunaStudy
from search.study.outcomes import Evaluation
from search.study.subject import Subject
from search.study.trials import (
    COMPOSITION,
    DEATHS,
    EFFECT,
    FAILURE,
    KEPT,
    LOG_LOSS,
    REASON,
    SCORES,
    SECONDS,
    SOFT_SCORE,
    TrialRecord,
    kept_share,
)


class Ledger:
    """The trials of one study, as its driver begins and ends them. Writing raises StorageLost."""

    def __init__(
        self, subject: Subject, stored: OptunaStudy, objective: Objective, history: History
    ) -> None:
        """Over trials that are `stored`; `recall` tells `history` of them, which is empty."""
        self._folder = subject.folder
        self._study_id = subject.identity.study_id
        self._also_small = subject.config.search.pareto
        self._objective = objective
        self._history = history
        self._stored = stored
        self._parameters = Parameters(subject.space)
        self._shapes = subject.shapes
        if (sizes := subject.space.budget) is not None:
            self._shapes = dict(zip(sizes.refs, sizes.shapes, strict=True))
        self._ended: dict[int, TrialRecord] = {}

    def trials(self) -> list[TrialRecord]:
        """All trials, in order of number; those that their outcome files contradict as failed."""
        found = [self._ended.get(t.number) or TrialRecord.of(t) for t in self._stored.trials()]
        self._ended = {one.number: one for one in found if one.state.is_finished()}
        return found

    def recall(self) -> list[TrialRecord]:
        """Tell the history of every trial; returns those that were in flight."""
        self._ended |= disputed(self.trials(), self._folder, self._study_id)
        found = self.trials()
        for trial in found:
            self._history.put(trial.tried())
        return [trial for trial in found if trial.state == TrialState.RUNNING]

    def adopt(self, orphan: TrialRecord) -> Trial:
        """A trial that an earlier driver began: it keeps its number and budget."""
        return self._stored.adopt(orphan.frozen)

    def begin(self, proposed: Composition) -> Trial:
        """A new trial of a composition."""
        if not self._history.is_new(proposed):
            raise AssertionError(f"the strategy proposed {proposed}, which was tried before")
        params, distributions = self._parameters.of(proposed)
        attributes = {COMPOSITION: str(proposed), EFFECT: self._history.effect(proposed)}
        trial = self._stored.begin(params, distributions, attributes)
        self._history.put(TrialRecord.of(self._stored.stored(trial)).tried())
        return trial

    def report(self, trial: Trial, step: int, value: float) -> None:
        """Record the score after `step` chunks, once: a job may have begun anew."""
        if step not in self._stored.stored(trial).intermediate_values:
            trial.report(value, step)

    def note_deaths(self, trial: Trial, deaths: int) -> None:
        """Record how many workers died of a trial."""
        trial.set_user_attr(DEATHS, deaths)

    @staticmethod
    def deaths(trial: Trial) -> int:
        """How many workers have died of a trial."""
        return int(trial.user_attrs.get(DEATHS, 0))

    def complete(
        self, trial: Trial, evaluation: Evaluation, baseline: Evaluation | None
    ) -> TrialRecord:
        """Record what was found, and how far it misses each floor, given the `baseline`."""
        trial.set_user_attr(LOG_LOSS, evaluation.log_loss)
        if (soft := self._objective.soft_score(evaluation)) is not None:
            trial.set_user_attr(SOFT_SCORE, soft)
        trial.set_user_attr(SECONDS, evaluation.seconds)
        values = [evaluation.score]
        self._judge(trial, evaluation.scores, baseline)
        if self._shapes is not None:
            composition = self._history[trial.number].composition
            kept = kept_share(composition, self._shapes, self._history.spectra)
            trial.set_user_attr(KEPT, kept)
            values += [1 - kept] if self._also_small else []
        return self._end(self._stored.tell(trial, values, TrialState.COMPLETE))

    def stop_early(self, trial: Trial, soft_score: float | None) -> TrialRecord:
        """Record that a trial was stopped; its reported scores stay with it."""
        if soft_score is not None:
            trial.set_user_attr(SOFT_SCORE, soft_score)
        return self._end(self._stored.tell(trial, None, TrialState.PRUNED))

    def fail(self, trial: Trial, reason: str, kind: str) -> TrialRecord:
        """Record why a trial has no result."""
        trial.set_user_attr(REASON, reason)
        trial.set_user_attr(FAILURE, kind)
        return self._end(self._stored.tell(trial, None, TrialState.FAIL))

    def _judge(
        self, trial: Trial, scores: Mapping[str, float], baseline: Evaluation | None
    ) -> None:
        """Keep each task's score with a trial, and how far it misses each floor."""
        if not scores:
            return
        trial.set_user_attr(SCORES, dict(scores))
        if baseline is None or not self._objective.needs_baseline:
            return
        told = trial.constraints  # a driver that died may have begun
        for key, value in self._objective.violations(scores, baseline.scores).items():
            if key not in told:
                trial.set_constraint(key, value)

    def _end(self, stored: FrozenTrial) -> TrialRecord:
        record = TrialRecord.of(stored)
        self._history.put(record.tried())
        return record
