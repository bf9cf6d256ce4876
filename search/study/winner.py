"""The winner: the best trial that beats the unedited model, also on questions that no trial saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from search.budget import holding
from search.cuts.composition import Composition
from search.sections import ConfirmConfig
from search.study.jobs import (
    BASELINE,
    CONFIRM_BASELINE,
    TEST_BASELINE,
    Job,
    Part,
    confirm_name,
    guard_baseline,
    guard_name,
    test_name,
    trial_name,
)
from search.study.objective import Objective
from search.study.outcomes import Evaluation, read_outcomes
from search.study.trials import TrialRecord

Trials = Sequence[TrialRecord]


def choose_winner(
    trials: Iterable[TrialRecord], baseline: Evaluation | None, objective: Objective
) -> TrialRecord | None:
    """The best evaluated trial above every floor, or None if none beats the baseline.

    `baseline` None: the best one wins in any case.
    """
    return next(iter(choose_finalists(trials, baseline, 1, objective)), None)


def choose_finalists(
    trials: Iterable[TrialRecord],
    baseline: Evaluation | None,
    count: int,
    objective: Objective,
) -> list[TrialRecord]:
    """The best evaluated trials above every floor that beat the baseline, the best first.

    Trials beat the baseline on what they are ranked by, then on log-loss.
    """
    best = nlargest(count, (t for t in trials if t.counts), key=lambda trial: trial.merit)
    if baseline is None:
        return best
    return [t for t in best if t.merit[:2] > objective.merit(baseline)]


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


def best_by_share(
    trials: Trials, shares: Sequence[float], *, by_log_loss: bool = False
) -> dict[float, TrialRecord]:
    """The best evaluated trial above every floor for each of `shares`, the largest share first.

    A trial is for the smallest share that holds what it keeps. `by_log_loss`: the best is the one
    of the lowest log-loss.
    """

    def merit(trial: TrialRecord) -> tuple[float, ...]:
        return (-(trial.log_loss or 0.0), *trial.merit) if by_log_loss else trial.merit

    found: dict[float, TrialRecord] = {}
    for trial in trials:
        if not trial.counts or trial.kept is None:
            continue
        share = holding(shares, trial.kept)
        if share is not None and (share not in found or merit(trial) > merit(found[share])):
            found[share] = trial
    return {share: found[share] for share in sorted(found, reverse=True)}


@dataclass(frozen=True)
class Decision:
    """The winner, None where nothing helps, and what it was chosen among.

    `finalists`: how many were confirmed, 0 before that. `infeasible`: how many trials broke a floor
    on validation. `finished`: how many trials there are by now, None if that is not on record.
    """

    winner: TrialRecord | None
    finalists: int = 0
    infeasible: int = 0
    finished: int | None = None


@dataclass(frozen=True)
class Confirmation:
    """The end of the study in `folder`. `confirm` None: the winner is the best on validation.

    `general_text`: the digest of the texts on which the winner is compared too. `must_gain`:
    whether the winner has to beat the unedited model, as it must where no budget makes it smaller.
    """

    folder: Path
    study_id: str
    confirm: ConfirmConfig | None
    objective: Objective
    general_text: str | None = None
    must_gain: bool = True

    def chosen(self, trials: Trials, baseline: Evaluation | None) -> Decision:
        """The winner; until all finalists are confirmed, the best on validation."""
        finalists = self._finalists(trials, baseline)
        if not finalists:
            return Decision(None)
        seen = self._confirmed(finalists) if self.confirm is not None else None
        if seen is None:
            return Decision(finalists[0])
        merit = self.objective.merit
        best = max(finalists, key=lambda trial: merit(seen[trial.effect]))
        beats = not self.must_gain or merit(seen[best.effect]) > merit(seen[""])
        return Decision(best if beats else None, len(finalists))

    def wanted(self, trials: Trials, baseline: Evaluation | None) -> list[Job]:
        """What can be asked now, once the search is over; empty when all is known."""
        finalists = self._finalists(trials, baseline)
        if self.confirm is not None and finalists:
            names = {confirm_name(trial.number): trial for trial in finalists}
            if jobs := self._missing("confirm", CONFIRM_BASELINE, names):
                return jobs
        winner = self.chosen(trials, baseline).winner
        if winner is None:
            return self._missing("test", TEST_BASELINE, {})
        # Its answers on validation too, should their file have been damaged since.
        known = self._missing("validation", BASELINE, {trial_name(winner.number): winner})
        return known or _where_passes_left_off(
            [
                *self._missing("test", TEST_BASELINE, {test_name(winner.number): winner}),
                *self._general_text(winner),
            ]
        )

    def _general_text(self, winner: TrialRecord) -> list[Job]:
        if (digest := self.general_text) is None:
            return []
        names = {guard_name(winner.number, digest): winner}
        return self._missing("guard", guard_baseline(digest), names)

    def _finalists(self, trials: Trials, baseline: Evaluation | None) -> list[TrialRecord]:
        count = 1 if self.confirm is None else self.confirm.finalists
        known = baseline if self.must_gain else None
        return choose_finalists(trials, known, count, self.objective)

    def _missing(self, part: Part, baseline: str, names: Mapping[str, TrialRecord]) -> list[Job]:
        """Jobs of what has no outcomes yet; where values are relative, the baseline's first."""
        before = self._read(baseline, "")
        jobs = []
        if before is None:
            ahead = tuple(trial.composition for trial in names.values())
            jobs.append(Job(baseline, Composition(), "", part, ahead=ahead))
        if self.objective.relative and before is None:
            return jobs
        reference = before.scores if before is not None and self.objective.relative else None
        for name, trial in names.items():
            if self._read(name, trial.effect) is None:
                jobs.append(Job(name, trial.composition, trial.effect, part, None, reference))
        return jobs

    def _confirmed(self, finalists: Trials) -> dict[str, Evaluation] | None:
        """The finalists there by effect, that of the unedited model empty; None if any is not."""
        names = {"": CONFIRM_BASELINE}
        names |= {trial.effect: confirm_name(trial.number) for trial in finalists}
        found = {effect: self._read(name, effect) for effect, name in names.items()}
        known = {effect: one for effect, one in found.items() if one is not None}
        return known if len(known) == len(found) else None

    def _read(self, name: str, effect: str) -> Evaluation | None:
        """Without its rows, which only a file of an earlier version has to show to be whole."""
        found = read_outcomes(self.folder, name, self.study_id, effect, rows=False)
        if found is None or found.verified:
            return found
        return read_outcomes(self.folder, name, self.study_id, effect)


def _where_passes_left_off(jobs: Sequence[Job]) -> list[Job]:
    """First a winner on a part of which the unedited model is known, last one on another.

    The worker that has just asked the unedited model holds where the winner begins. So one worker
    does part after part, two have a part each, and more wait for nothing.
    """
    unknown = {job.part for job in jobs if not job.composition.interventions}

    def turn(job: Job) -> int:
        if not job.composition.interventions:
            return 1
        return 2 if job.part in unknown else 0

    return sorted(jobs, key=turn)
