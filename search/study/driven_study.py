"""A study being driven: which job comes next, and what becomes of each.

A study is a folder: ``study.yaml`` (frozen configuration), ``study.json`` (identity), the Optuna
storage, ``outcomes/`` (per example), ``result.json``. Executors, one process or a cluster, take
jobs from `next_job` and hand back what became of them; the study can be killed between any two
writes and opened again. A trial in flight keeps its number and composition and runs again; a trial
whose outcome file is whole is told from the file.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

from optuna.trial import Trial

from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy
from search.strategies.registry import make_strategy
from search.study.baseline import baseline_tried
from search.study.jobs import BASELINE, Job, trial_name
from search.study.ledger import Ledger
from search.study.objective import Objective
from search.study.optuna_study import BUDGET, ELAPSED, ENDED, METRICS, SHAPES, WALL, OptunaStudy
from search.study.outcomes import (
    Evaluation,
    not_finite,
    outcome_bytes,
    parse_outcomes,
    read_outcomes,
    write_outcome_bytes,
)
from search.study.race import Race
from search.study.rivals import Rivals
from search.study.stopping import Stopping
from search.study.storages import Guard, StorageLost, refusal
from search.study.study_screen import StudyScreen
from search.study.subject import Subject
from search.study.trials import TrialRecord
from search.study.wall_time import WallTime
from search.study.winner import Confirmation, Decision
from search.witness import FilesChanged, Witness

log = logging.getLogger(__name__)

MAX_DEATHS_IN_A_ROW = 12
"""Worker deaths with nothing finished in between after which the study stops: nothing works."""

FailureKind = Literal["error", "not finite", "out of memory", "timeout", "worker died"]
"""What kind of reason a trial fails for; one that is disputed afterwards has a kind of its own."""


@dataclass
class _Live:
    """A job in flight."""

    job: Job
    trial: Trial | None
    deaths: int = 0
    scores: dict[str, float] = field(default_factory=dict)


class DrivenStudy:
    """A study being driven. Create it under `driver_lock`; one instance per driver."""

    def __init__(
        self,
        subject: Subject,
        stored: OptunaStudy,
        clock: Callable[[], float] = time.monotonic,
        wall: WallTime | None = None,
        witness: Witness | None = None,
    ) -> None:
        """Over trials that are `stored`; see `open`."""
        self.folder = subject.folder
        self.identity = subject.identity
        self.config = config = subject.config
        self.objective = subject.objective or Objective.of(config, {})
        self.budget = int(min(config.search.trials, subject.space.size(subject.max_ranks)))
        self.stopped: str | None = None
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        setting = subject.setting or Setting(
            subject.space, subject.max_ranks, config.search.seed, config.search.objectives
        )
        self.history = History(subject.max_ranks, self.budget, setting.spectra)
        self._strategy: Strategy | None = None
        self._sizes = sizes = subject.space.budget
        self._stopping = Stopping(config.search.stop, self.objective.metric)
        self._confirmation = Confirmation(
            self.folder,
            self.identity.study_id,
            config.search.confirm,
            self.objective,
            subject.general_text,
            must_gain=sizes is None,
        )
        self._stored = stored
        self._ledger = Ledger(subject, stored, self.objective, self.history)
        self._clock = clock
        self._began_s: float = clock() - stored.facts.get(ELAPSED, 0.0)
        self._wall = wall or WallTime(clock)
        self._wall.add(stored.facts.get(WALL, {}))
        self._witness = Witness() if witness is None else witness
        self._is_touched = False
        self._live: dict[str, _Live] = {}
        self._retries: list[_Live] = []
        self._orphans: list[TrialRecord] = []
        self._deaths_in_a_row = 0
        self._most_at_once = 0
        self._baseline: Evaluation | None = None
        self._rivals = Rivals(self.objective, sizes, self.trials, lambda: self.baseline, self._read)
        self._screen = StudyScreen(subject, setting, self.objective, self._write)

    @staticmethod
    def open(
        subject: Subject,
        *,
        guard: Guard = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall: WallTime | None = None,
        witness: Witness | None = None,
    ) -> DrivenStudy:
        """Open the Optuna study, create it if need be, and adopt trials that were in flight.

        `guard` is called before every write; it raises StorageLost where this driver may not write
        any more. `clock` in seconds. `wall` has counted since this run began; by default one counts
        from now. `witness` knows the files that trials depend on: once one changes, the study
        stops. Raises InputError.
        """
        name = subject.identity.study_id
        stored = OptunaStudy.open(subject.folder, name, subject.config, guard)
        study = DrivenStudy(subject, stored, clock, wall, witness)
        stored.note(BUDGET, study.budget)
        if study.ended:
            stored.note(ENDED, "")  # until it is found to be so again
        if subject.objective is not None:
            stored.note(METRICS, subject.objective.metrics)
        if (sizes := subject.space.budget) is not None:
            stored.note(SHAPES, {str(r): s for r, s in zip(sizes.refs, sizes.shapes, strict=True)})
        study._recall()
        return study

    @property
    def ended(self) -> str:
        """Why no further trial begins although more are asked for, empty if one may."""
        return str(self._stored.facts.get(ENDED, ""))

    @property
    def elapsed_s(self) -> float:
        """Seconds of driving this study, over all runs."""
        return self._clock() - self._began_s

    @property
    def spent(self) -> int:
        """Finished trials; the baseline is free."""
        return self.history.spent

    @property
    def baseline(self) -> Evaluation | None:
        """The unedited model on validation, once it is known."""
        if self._baseline is None:
            self._baseline = self._read(BASELINE, "")
        return self._baseline

    def running(self) -> list[Job]:
        """Jobs in flight."""
        return [live.job for live in self._live.values()]

    def trials(self) -> list[TrialRecord]:
        """All trials, in order of number; those that their outcome files contradict as failed."""
        return self._ledger.trials()

    def _recall(self) -> None:
        self._orphans = self._ledger.recall()
        if (known := self.baseline) is not None:
            self._remember_baseline(known)
        self._go_on(self._screen.recall())

    def together(self) -> AbstractContextManager[None]:
        """Within, what is recorded is flushed to the disk once, at the end."""
        return self._stored.together()

    def later(self) -> AbstractContextManager[None]:
        """Within, what is recorded may wait for what is recorded next."""
        return self._stored.later()

    # What to do next ---------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """The next piece of work, or None: nothing now if `running` is not empty, else the end."""
        if self.stopped or self.draining or not self.is_intact():
            return None
        if self._retries:
            live = self._retries.pop(0)
            self._live[live.job.name] = live
            return live.job
        if (first := self._before_trials()) is not None:
            return self._start(first, None)
        if self._must_wait():
            return None
        while (trial := self._next_trial()) is not None:
            job = self._job_of(trial)
            if job is not None:
                return self._start(job, trial)
        return self._next_check()

    @property
    def goes_on(self) -> bool:
        """Whether more trials may be begun, as far as is known without asking the storage."""
        over = self.stopped or self.draining
        return not over and self.spent + len(self.history.in_flight) < self.budget

    @property
    def waits(self) -> bool:
        """Whether trials are to come that wait for the baseline or a screen."""
        return self.goes_on and self._must_wait()

    def _before_trials(self) -> Job | None:
        """What is asked of the unedited model and not yet begun."""
        if self.history.baseline is None and BASELINE not in self._live:
            return Job(BASELINE, Composition(), "", "validation")
        return next((job for job in self._screen.jobs() if job.name not in self._live), None)

    def _must_wait(self) -> bool:
        """Whether no trial can be chosen, or none judged, yet."""
        unjudged = self.objective.needs_baseline and self.baseline is None
        return unjudged or self._screen.is_missing

    def _start(self, job: Job, trial: Trial | None) -> Job:
        log.debug("%s begins: %s", job.name, job.composition)
        deaths = 0 if trial is None else self._ledger.deaths(trial)
        self._live[job.name] = _Live(job, trial, deaths)
        self._wall.work_on(job.part)
        self._most_at_once = max(self._most_at_once, len(self._live))
        return job

    def _next_trial(self) -> Trial | None:
        if self._orphans:
            return self._ledger.adopt(self._orphans.pop(0))
        if self.spent + len(self.history.in_flight) >= self.budget:
            return None
        baseline = self.history.baseline if self._sizes is None else None
        reason = self._stopping.reason(self.history, baseline, self.elapsed_s)
        proposed = None if reason else self._suggest()
        if proposed is not None:
            return self._ledger.begin(proposed)
        if not self._live and not self.ended:  # what is in flight may change the reason
            self._stored.note(ENDED, reason or "its strategy has nothing left to try")
        return None

    def _suggest(self) -> Composition | None:
        if self._strategy is None:
            self._strategy = make_strategy(self.config.search, self._screen.setting)
        return self._strategy.suggest(self.history)

    def _job_of(self, trial: Trial) -> Job | None:
        """The work that a trial needs; None if an outcome file answers it."""
        known = self.history[trial.number]
        reference = self._reference(self.baseline)
        name = trial_name(trial.number)
        job = Job(name, known.composition, known.effect, "validation", trial.number, reference)
        if (found := self._read(name, known.effect)) is not None:
            self._start(job, trial)
            self._finish(job, found)
            return None
        return job

    def _next_check(self) -> Job | None:
        """What is still to be asked on questions that no trial saw, when no trial is in flight."""
        if any(live.trial is not None for live in self._live.values()):
            return None
        wanted = self._confirmation.wanted(self.trials(), self.baseline)
        job = next((job for job in wanted if job.name not in self._live), None)
        return None if job is None else self._start(job, None)

    def _reference(self, baseline: Evaluation | None) -> Mapping[str, float] | None:
        """What the value of a job is relative to, if to anything."""
        return baseline.scores if baseline is not None and self.objective.relative else None

    def is_intact(self) -> bool:
        """Whether all files that trials depend on are what they were; stops the study if not.

        Nothing that was evaluated since the last look is recorded then: what is in flight stays
        so, and runs again on a resume.
        """
        if self._is_touched:
            return False
        try:
            self._witness.check()
        except FilesChanged as error:
            self._is_touched = True
            names = ", ".join(job.name for job in self.running())
            again = f"; {names} may have met the change and will run again" if names else ""
            self.stopped = (
                f"{error}{again}; what was recorded before is true: put the file back as it was "
                f"and continue with laser-search resume {self.folder}, or launch a new study"
            )
            return False
        return True

    def _leaves(self, job: Job) -> bool:
        """Whether a job's end is not to be recorded, because a file changed: it stays in flight."""
        if self.is_intact():
            return False
        self._live.pop(job.name)
        self.on_change()
        return True

    # What became of it -------------------------------------------------------------------------

    def report(
        self, job: Job, step: int, value: float, scores: Mapping[str, float] | None = None
    ) -> bool:
        """Record the score after `step` chunks; returns whether the trial should stop here.

        `scores`: those of the chunk's examples by id, for a race (see `Objective.paired`).
        """
        live = self._live[job.name]
        if live.trial is None or math.isnan(value):
            return False
        self._ledger.report(live.trial, step, value)
        if self.config.search.pruner == "race":
            return self._has_lost(live, step, scores or {})
        return live.trial.should_prune()

    def _has_lost(self, live: _Live, step: int, scores: Mapping[str, float]) -> bool:
        if step == 1:  # also when the job began anew after its worker died
            live.scores.clear()
        live.scores.update(scores)
        incumbent = self._rivals.of(live.job.composition)
        if incumbent is None:
            return False
        race = Race(self.config.search.chunks, self.config.search.race_error)
        return race.is_lost(incumbent.differences(live.scores), len(incumbent.scores))

    def finish(self, job: Job, evaluation: Evaluation) -> None:
        """Record a complete evaluation: outcomes first, then the trial. Raises StorageLost.

        Nothing is recorded if a file that trials depend on has changed; the study stops then.
        """
        if self._leaves(job):
            return
        self._finish(job, evaluation)

    def _finish(self, job: Job, evaluation: Evaluation) -> None:
        if fault := not_finite(evaluation):
            self.fail(job, fault, "not finite")
            return
        if (written := self._read(job.name, job.effect)) is None:
            self._write(evaluation.name, outcome_bytes(evaluation))
        self._record(job, written or evaluation)  # the record and the file always say the same

    def take(self, job: Job, data: bytes | None) -> bool:
        """Record what a worker made of a job: the file it sent, else the one it left in the folder.

        Returns False, with nothing recorded, if that cannot be read. Raises StorageLost. It costs
        little more however many examples there are.
        """
        if self._leaves(job):
            return True
        known = (self.identity.study_id, job.effect)
        if data is None:
            found = read_outcomes(self.folder, job.name, *known, rows=False)
        else:
            found = parse_outcomes(data, *known, rows=False)
        if found is None:
            return False
        if fault := not_finite(found):
            self.fail(job, fault, "not finite")
            return True
        if data is not None:
            self._write(job.name, data)
        self._record(job, found)
        return True

    def _record(self, job: Job, evaluation: Evaluation) -> None:
        """Tell the trial what its outcome file, which is written, says."""
        live = self._live.pop(job.name)
        self._deaths_in_a_row = 0
        if live.trial is not None:
            self._ended(self._ledger.complete(live.trial, evaluation, self.baseline))
        elif job.name == BASELINE:
            self._remember_baseline(self.baseline or evaluation)
        elif job.part == "screen":
            self._go_on(self._screen.put(evaluation))
        self.note_wall()
        self.on_change()

    def prune(self, job: Job) -> None:
        """Record that a trial was stopped early; its reported scores stay with it."""
        if self._leaves(job):
            return
        live = self._live.pop(job.name)
        if live.trial is None:
            raise AssertionError(f"{job.name} has no trial to stop")
        soft = self._rivals.soft_so_far(live.scores)
        self._ended(self._ledger.stop_early(live.trial, soft))
        self._deaths_in_a_row = 0
        self.note_wall()
        self.on_change()

    def fail(self, job: Job, reason: str, kind: FailureKind = "error") -> None:
        """Record that a job has no result. Without a baseline or a test score, the study stops."""
        if self._leaves(job):
            return
        live = self._live.pop(job.name)
        if job.part == "screen":
            self._go_on(self._screen.go_without(reason))
        elif live.trial is None:
            self.stopped = f"{job.name} failed: {reason}"
        else:
            self._ended(self._ledger.fail(live.trial, reason, kind))
        self.note_wall()
        self.on_change()

    def note_wall(self) -> None:
        """Record the wall time until now. Raises StorageLost."""
        spent = {phase: round(seconds, 3) for phase, seconds in self._wall.seconds().items()}
        self._stored.note(WALL, spent)

    def abandon(self, job: Job, reason: str) -> None:
        """No worker can be built, so nothing can be evaluated: stop, and leave the trial in flight.

        It runs when the study is resumed, after the reason was mended.
        """
        if self._leaves(job):  # a worker saw the change first, and knows less
            return
        self._live.pop(job.name)
        self.stopped = reason
        self.on_change()

    def died(self, job: Job, reason: str, kind: FailureKind = "worker died") -> None:
        """A worker died: the same job again, up to `max_attempts` times, then it fails.

        The study stops if nothing works. That a node took all of its workers along is no such
        case, so as many deaths as there were jobs at once are borne, twice.
        """
        live = self._live[job.name]
        live.deaths += 1
        self._deaths_in_a_row += 1
        if live.trial is not None:
            self._ledger.note_deaths(live.trial, live.deaths)
        if self._deaths_in_a_row >= max(MAX_DEATHS_IN_A_ROW, 2 * self._most_at_once):
            self._live.pop(job.name)  # in flight in the storage, so that a resume takes it up
            self.stopped = f"workers died {self._deaths_in_a_row} times in a row: {reason}"
        elif live.deaths >= self.config.search.max_attempts:
            self.fail(job, f"given up after {live.deaths} attempts: {reason}", kind)
        else:
            self._retries.append(self._live.pop(job.name))
        self.on_change()

    def _ended(self, trial: TrialRecord) -> None:
        """A trial has ended, and its storage says so."""
        self._rivals.heard(trial)
        if self.config.search.stop.wall_s is not None:
            self._stored.note(ELAPSED, round(self.elapsed_s, 3))

    def _remember_baseline(self, evaluation: Evaluation) -> None:
        own = evaluation.scores
        if self.objective.needs_baseline and own:
            missed = self.objective.violations(own, own)
            self.history.room = {key: -value for key, value in missed.items()}
        self.history.put(baseline_tried(evaluation, self.config.search.chunks, self.objective))

    def _go_on(self, fault: str) -> None:
        """With or without a screen, unless `fault` says why not; no piece of it is tried again."""
        self.stopped = fault or self.stopped
        if not self._screen.is_missing:
            self._retries = [live for live in self._retries if live.job.part != "screen"]

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_outcome_bytes(self.folder, name, data)
        except OSError as error:
            raise StorageLost(refusal(self.folder, error)) from None

    def _read(self, name: str, effect: str) -> Evaluation | None:
        return read_outcomes(self.folder, name, self.identity.study_id, effect)

    # What was found ----------------------------------------------------------------------------

    def chosen(self) -> Decision:
        """The best complete trial if it beats the baseline; ties as in the paper."""
        return self._confirmation.chosen(self.trials(), self.baseline)

    def winner(self) -> TrialRecord | None:
        """The trial that is chosen, None if there is none yet or nothing helps."""
        return self.chosen().winner
