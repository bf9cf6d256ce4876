"""The durable record of a search, and the only caller of Optuna's ask and tell.

A study is a folder: ``study.yaml`` (frozen configuration), ``study.json`` (identity), the Optuna
storage, ``outcomes/`` (per example), ``result.json``. Executors, one process or a cluster, take
jobs from `next_job` and hand back what became of them; the study can be killed between any two
writes and opened again. A trial in flight keeps its number and parameters and runs again; a trial
whose outcome file is whole is told from the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.composition import Composition
from search.config import StudyConfig
from search.space import NeighbourDraw, Space
from search.strategies.registry import make_sampler
from search.strategies.replayable import DUPLICATE_OF, is_duplicate
from search.study.enduring import Guard, StorageLost, refusal
from search.study.goals import Objective
from search.study.identity import Identity
from search.study.jobs import BASELINE, TEST_BASELINE, Job, test_name, trial_name
from search.study.outcomes import Evaluation, parse_outcomes, read_outcomes, write_outcomes
from search.study.race import Incumbent, Race
from search.study.enduring import together
from search.study.storage import open_storage
from search.weights.refs import MatrixRef

BUDGET = "budget"
"""Study attribute: finished trials asked for, bounded by what the space holds."""

SCORES = "scores"
"""Trial attribute: every task's mean score by its label, where there are several."""

METRICS = "metrics"
"""Study attribute: every task's metric by its label."""

EXHAUSTED = "exhausted"
"""Study attribute: no composition without a record was found any more."""

BASELINE_NUMBER = -1
MAX_DRAWS = 20_000
"""Draws after which a space counts as exhausted."""

MAX_DEATHS_IN_A_ROW = 12
"""Worker deaths with nothing finished in between after which the study stops: nothing works."""

FailureKind = Literal["error", "not finite", "out of memory", "timeout", "worker died"]
"""Trial attribute ``failure``: what kind of reason the attribute ``reason`` is."""


@dataclass
class _Live:
    """A job in flight; `twins` are trials of the same effect that wait for its answer."""

    job: Job
    trial: Trial | None
    deaths: int = 0
    twins: list[Trial] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Record:
    """How an effect was answered, for duplicates of it."""

    number: int
    state: TrialState
    value: float | None
    log_loss: float | None = None
    steps: tuple[tuple[int, float], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """The pruner of a configuration, over the scores after each chunk of examples."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=8)
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


class Study:
    """A study being driven. Create it under `driver_lock`; one instance per driver."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        config: StudyConfig,
        space: Space,
        max_ranks: dict[MatrixRef, int],
        objective: Objective | None = None,
        guard: Guard = lambda: None,
    ) -> None:
        """Open the Optuna study, create it if need be, and adopt trials that were in flight.

        `objective` knows the tasks' metrics; without it they are called ``score``. `guard` is
        called before every write; it raises StorageLost where this driver may not write any more.
        """
        self.folder = folder
        self.identity = identity
        self.config = config
        self.stopped: str | None = None
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        self.objective = objective or Objective.of(config, {})
        self._space = space
        self._max_ranks = max_ranks
        # Not a line per trial, nor a warning per conditional slot, which TPE draws by itself.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna.create_study(
            study_name=identity.study_id,
            storage=open_storage(folder, config.storage, config.cluster.storage_wait_s, guard),
            load_if_exists=True,
            direction="maximize",
            sampler=make_sampler(config.search.strategy, config.search.seed),
            pruner=make_pruner(config.search.pruner),
        )
        self._live: dict[str, _Live] = {}
        self._retries: list[_Live] = []
        self._records: dict[str, _Record] = {}
        self._orphans: list[int] = []
        self._deaths_in_a_row = 0
        self._most_at_once = 0
        self._incumbent: Incumbent | None = None
        self._repeated = False
        self._baseline: Evaluation | None = None
        self._optuna.set_user_attr(BUDGET, self.budget)
        if self.exhausted:
            self._optuna.set_user_attr(EXHAUSTED, False)  # until it is found to be so again
        if objective is not None:
            self._optuna.set_user_attr(METRICS, objective.metrics)
        self._recall()

    @property
    def budget(self) -> int:
        """Finished trials asked for, bounded by what the space holds."""
        return int(min(self.config.search.trials, self._space.size(self._max_ranks)))

    @property
    def exhausted(self) -> bool:
        """Whether the search ended because no composition without a record was found."""
        return bool(self._optuna.user_attrs.get(EXHAUSTED, False))

    @property
    def spent(self) -> int:
        """Finished trials that were evaluated; duplicates and the baseline are free."""
        return sum(record.number != BASELINE_NUMBER for record in self._records.values())

    @property
    def baseline(self) -> Evaluation | None:
        """The unedited model on validation, once it is known."""
        if self._baseline is None:
            self._baseline = self._read(BASELINE, "")
        return self._baseline

    def running(self) -> list[Job]:
        """Jobs in flight."""
        return [live.job for live in self._live.values()]

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order of number."""
        return self._optuna.get_trials(deepcopy=False)

    def _recall(self) -> None:
        for trial in self.trials():
            self._repeated = is_duplicate(trial)
            if trial.state == TrialState.RUNNING:
                self._orphans.append(trial._trial_id)
            elif trial.state.is_finished() and not is_duplicate(trial):
                self._records[trial.user_attrs["effect"]] = _Record(
                    trial.number,
                    trial.state,
                    trial.value if trial.state == TrialState.COMPLETE else None,
                    trial.user_attrs.get("log_loss"),
                    tuple(sorted(trial.intermediate_values.items())),
                    trial.user_attrs.get(SCORES, {}),
                )
        if (known := self.baseline) is not None:
            self._remember_baseline(known)

    def together(self) -> AbstractContextManager[None]:
        """Within, what is recorded is flushed to the disk once, at the end."""
        return together(self._optuna._storage)

    # What to do next ---------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """The next piece of work, or None: nothing now if `running` is not empty, else the end."""
        if self.stopped or self.draining:
            return None
        if self._retries:
            live = self._retries.pop(0)
            self._live[live.job.name] = live
            return live.job
        if "" not in self._records and BASELINE not in self._live:
            return self._start(Job(BASELINE, Composition(), "", "validation"), None)
        if self.objective.needs_baseline and self.baseline is None:
            return None  # no trial could be judged yet
        while (trial := self._next_trial()) is not None:
            job = self._job_of(trial)
            if job is not None:
                return self._start(job, trial)
        return None if self._live else self._next_test()

    def _start(self, job: Job, trial: Trial | None) -> Job:
        deaths = 0 if trial is None else int(trial.user_attrs.get("deaths", 0))
        self._live[job.name] = _Live(job, trial, deaths)
        self._most_at_once = max(self._most_at_once, len(self._live))
        return job

    def _next_trial(self) -> Trial | None:
        if self._orphans:
            # In place, not by enqueueing: the trial keeps its parameters, number and budget.
            return Trial(self._optuna, self._orphans.pop(0))
        in_flight = sum(live.trial is not None for live in self._live.values())
        if self.spent + in_flight >= self.budget:
            return None
        if self._repeated and not self._enqueue_unseen():
            return None
        return self._optuna.ask()

    def _enqueue_unseen(self) -> bool:
        """Queue a composition near the last one that has no record; False if none is found.

        A sampler that has converged proposes what is known already; after every such proposal its
        neighbourhood is searched instead, farther out at every attempt (docs/log.md). Drawn from
        the seed and the number of trials, so a resumed study draws the same.
        """
        seen = self._records.keys() | {live.job.effect for live in self._live.values()}
        trials = self.trials()
        near = trials[-1].params
        for attempt in range(MAX_DRAWS):
            seed = f"{self.config.search.seed}/{len(trials)}/{attempt}"
            draw = NeighbourDraw(seed, near, max(0.0, 0.9 - attempt / 100))
            if self._space.composition(draw).effect(self._max_ranks) not in seen:
                self._optuna.enqueue_trial(draw.params)
                return True
        if not self.exhausted:
            self._optuna.set_user_attr(EXHAUSTED, True)
        return False

    def _job_of(self, trial: Trial) -> Job | None:
        """The work that a trial needs; None if the record or an outcome file answers it."""
        composition = self._space.composition(trial)
        effect = composition.effect(self._max_ranks)
        if "effect" not in trial.user_attrs:
            trial.set_user_attr("composition", str(composition))
            trial.set_user_attr("effect", effect)
        if effect in self._records:
            self._repeated = True
            self._answer(trial, self._records[effect])
            return None
        twin = next((x for x in self._live.values() if x.job.effect == effect), None)
        if twin is not None:
            self._repeated = True
            trial.set_user_attr(DUPLICATE_OF, twin.job.number)
            twin.twins.append(trial)
            return None
        self._repeated = False
        number = trial.number
        reference = self._reference(self.baseline)
        job = Job(trial_name(number), composition, effect, "validation", number, reference)
        if DUPLICATE_OF in trial.user_attrs:  # was a twin when the driver died; now it leads
            trial.set_user_attr(DUPLICATE_OF, None)
        if (known := self._read(job.name, effect)) is not None:
            self._start(job, trial)
            self.finish(job, known)
            return None
        return job

    def _next_test(self) -> Job | None:
        """What is still to be scored on test: the baseline and the winner, once each."""
        winner = self.winner()
        baseline = self._read(TEST_BASELINE, "")
        if baseline is None:
            return self._start(Job(TEST_BASELINE, Composition(), "", "test"), None)
        if winner is not None:
            effect = winner.user_attrs["effect"]
            name = test_name(winner.number)
            if self._read(name, effect) is None:
                composition = self.composition_of(winner)
                reference = self._reference(baseline)
                return self._start(Job(name, composition, effect, "test", None, reference), None)
        return None

    def _reference(self, baseline: Evaluation | None) -> Mapping[str, float] | None:
        """What the value of a job is relative to, if to anything."""
        return baseline.scores if baseline is not None and self.objective.relative else None

    # What became of it -------------------------------------------------------------------------

    def report(
        self, job: Job, step: int, value: float, scores: Mapping[str, float] | None = None
    ) -> bool:
        """Record the score after `step` chunks; returns whether the trial should stop here.

        `scores`: those of the chunk's examples by id, for a race.
        """
        live = self._live[job.name]
        if live.trial is None or math.isnan(value):
            return False
        if step not in dict(live.trial.storage.get_trial(live.trial._trial_id).intermediate_values):
            live.trial.report(value, step)
        if self.config.search.pruner == "race":
            return self._has_lost(live, step, scores or {})
        return live.trial.should_prune()

    def _has_lost(self, live: _Live, step: int, scores: Mapping[str, float]) -> bool:
        if step == 1:  # also when the job began anew after its worker died
            live.scores.clear()
        live.scores.update(scores)
        incumbent = self._best_known()
        if incumbent is None:
            return False
        race = Race(self.config.search.chunks, self.config.search.race_error)
        return race.is_lost(incumbent.differences(live.scores), len(incumbent.scores))

    def _best_known(self) -> Incumbent | None:
        """The best complete evaluation so far, the baseline included; None before there is any."""
        baseline = self._records.get("")
        if baseline is None or (known := self.baseline) is None:
            return None
        if self._incumbent is None:
            if (winner := self.winner()) is not None:
                effect = winner.user_attrs["effect"]
                known = self._read(trial_name(winner.number), effect) or known
            self._incumbent = Incumbent.of(known.outcomes)
        return self._incumbent

    def finish(self, job: Job, evaluation: Evaluation) -> None:
        """Record a complete evaluation: outcomes first, then the trial. Raises StorageLost."""
        if fault := _not_finite(evaluation):
            self.fail(job, fault, "not finite")
            return
        live = self._live.pop(job.name)
        self._deaths_in_a_row = 0
        self._incumbent = None
        if self._read(job.name, job.effect) is None:
            self._write(evaluation)
        if live.trial is not None:
            live.trial.set_user_attr("log_loss", evaluation.log_loss)
            live.trial.set_user_attr("seconds", evaluation.seconds)
            self._close(live, TrialState.COMPLETE, evaluation)
        elif job.name == BASELINE:
            record = self._remember_baseline(evaluation)
            for twin in live.twins:
                self._answer(twin, record)
        self.on_change()

    def prune(self, job: Job) -> None:
        """Record that a trial was stopped early; its reported scores stay with it."""
        self._close(self._live.pop(job.name), TrialState.PRUNED)
        self._deaths_in_a_row = 0
        self.on_change()

    def fail(self, job: Job, reason: str, kind: FailureKind = "error") -> None:
        """Record that a job has no result. Without a baseline or a test score, the study stops."""
        live = self._live.pop(job.name)
        if live.trial is None:
            self.stopped = f"{job.name} failed: {reason}"
        else:
            live.trial.set_user_attr("reason", reason)
            live.trial.set_user_attr("failure", kind)
            self._close(live, TrialState.FAIL)
        self.on_change()

    def abandon(self, job: Job, reason: str) -> None:
        """No worker can be built, so nothing can be evaluated: stop, and leave the trial in flight.

        It runs when the study is resumed, after the reason was mended.
        """
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
            live.trial.set_user_attr("deaths", live.deaths)
        if self._deaths_in_a_row >= max(MAX_DEATHS_IN_A_ROW, 2 * self._most_at_once):
            self._live.pop(job.name)  # in flight in the storage, so that a resume takes it up
            self.stopped = f"workers died {self._deaths_in_a_row} times in a row: {reason}"
        elif live.deaths >= self.config.search.max_attempts:
            self.fail(job, f"given up after {live.deaths} attempts: {reason}", kind)
        else:
            self._retries.append(self._live.pop(job.name))
        self.on_change()

    def _close(
        self,
        live: _Live,
        state: TrialState,
        evaluation: Evaluation | None = None,
    ) -> None:
        trial = live.trial
        if trial is None:
            raise AssertionError(f"{live.job.name} has no trial to close")
        value = log_loss = None
        scores: Mapping[str, float] = {}
        if evaluation is not None:
            value, log_loss, scores = evaluation.score, evaluation.log_loss, evaluation.scores
            self._judge(trial, scores)
        frozen = self._optuna.tell(trial, value, state=state)
        steps = tuple(sorted(frozen.intermediate_values.items()))
        record = _Record(trial.number, state, value, log_loss, steps, scores)
        self._records[live.job.effect] = record
        for twin in live.twins:
            self._answer(twin, record)

    def _judge(self, trial: Trial, scores: Mapping[str, float]) -> None:
        """Keep each task's score with a trial, and how far it misses each floor."""
        if not scores:
            return
        trial.set_user_attr(SCORES, dict(scores))
        baseline = self.baseline
        if baseline is None or not self.objective.needs_baseline:
            return
        told = trial.constraints  # a driver that died may have begun
        for key, value in self.objective.violations(scores, baseline.scores).items():
            if key not in told:
                trial.set_constraint(key, value)

    def _answer(self, trial: Trial, record: _Record) -> None:
        """Tell a duplicate what is known; no worker sees it."""
        trial.set_user_attr(DUPLICATE_OF, record.number)
        if record.log_loss is not None:
            trial.set_user_attr("log_loss", record.log_loss)
        if record.state == TrialState.FAIL:
            trial.set_user_attr("reason", f"trial {record.number} failed")
        self._judge(trial, record.scores)
        told = trial.storage.get_trial(trial._trial_id).intermediate_values
        for step, value in record.steps:
            if step not in told:
                trial.report(value, step)
        self._optuna.tell(trial, record.value, state=record.state)

    def _remember_baseline(self, evaluation: Evaluation) -> _Record:
        record = _Record(
            BASELINE_NUMBER,
            TrialState.COMPLETE,
            evaluation.score,
            evaluation.log_loss,
            scores=evaluation.scores,
        )
        self._records[""] = record
        return record

    def evaluation(self, job: Job, data: bytes | None) -> Evaluation | None:
        """What a worker made of a job: from the `data` it sent, else from the study folder."""
        if data is None:
            return self._read(job.name, job.effect)
        return parse_outcomes(data, self.identity.study_id, job.effect)

    def _write(self, evaluation: Evaluation) -> None:
        try:
            write_outcomes(self.folder, evaluation)
        except OSError as error:
            raise StorageLost(refusal(self.folder, error)) from None

    def _read(self, name: str, effect: str) -> Evaluation | None:
        return read_outcomes(self.folder, name, self.identity.study_id, effect)

    # What was found ----------------------------------------------------------------------------

    def composition_of(self, trial: FrozenTrial) -> Composition:
        """The composition that a trial evaluated."""
        return Composition.parse(trial.user_attrs["composition"].split())

    def winner(self) -> FrozenTrial | None:
        """The best complete trial on validation if it beats the baseline; ties as in the paper."""
        return choose_winner(self.trials(), self.baseline)


def _not_finite(evaluation: Evaluation) -> str:
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


def choose_winner(trials: list[FrozenTrial], baseline: Evaluation | None) -> FrozenTrial | None:
    """The best evaluated trial above every floor, or None if none beats the baseline.

    Trials beat the baseline on (score, log-loss).
    """
    complete = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and not is_duplicate(trial) and is_feasible(trial)
    ]
    best = max(complete, key=merit, default=None)
    if best is None or baseline is None:
        return best
    return best if merit(best)[:2] > (baseline.score, -baseline.log_loss) else None
