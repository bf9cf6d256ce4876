"""The Ray Tune trainable: an actor that loads the model once and evaluates many trials."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import tune

from cluster.orphan import end_with
from search.config import StudyConfig
from search.cuts.refs import MatrixRef
from search.evaluation.evaluator import Evaluator, Hosting, Progress, Questions, open_evaluator
from search.evaluation.predictor import NonFiniteLogits
from search.model import ModelSource
from search.plan import open_asked
from search.reuse.activations import GIB, Room, SharedScratch
from search.reuse.forward import is_out_of_memory
from search.study.identity import FILE as IDENTITY_FILE
from search.study.identity import Identity
from search.study.jobs import Job
from search.study.lock import Holder
from search.study.objective import Objective
from search.study.outcomes import Evaluation, outcome_bytes, read_outcomes, write_outcomes
from search.weights.moments import SecondMoment
from search.witness import FilesChanged, Trace, Witness
from tasks.base import Example
from tasks.guarded import Guarded
from tasks.printable import printable
from tasks.secrets import hide_secrets

METRIC = "score"
ENDED = {"finished": True, "ended": True}
"""Of a result: its job is evaluated, and the worker waits for the next one. Were it ``done``, Tune
would end its trial without asking."""


@dataclass(frozen=True)
class Blueprint:
    """What a worker builds its evaluator from; sent to each once through Ray's object store."""

    config: StudyConfig
    folder: str
    study_id: str
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    objective: Objective
    threads: int
    device: str
    searched: frozenset[MatrixRef] = frozenset()
    workers: int = 1
    confirm: tuple[Example, ...] = ()
    driver: Holder | None = None
    sealed: Mapping[str, tuple[Trace | None, str]] | None = None
    inputs: Mapping[MatrixRef, SecondMoment] = field(default_factory=dict)
    general_text: tuple[Example, ...] = ()
    sample: tuple[Example, ...] = ()

    def build(self) -> tuple[Evaluator, Witness]:
        """Load the model and the factors on this worker's device.

        Raises FilesChanged unless what was loaded is what the study was begun with.
        """
        torch.set_num_threads(self.threads)
        source = self.config.model.source()
        witness = Witness()
        if self.sealed is not None:
            witness = Witness.sworn(source.folder, self.sealed)
        witness.check()
        before = dict(witness.traces)
        room = self.room()
        try:
            evaluator = self._evaluator(source, room)
            witness.check()
            if witness.traces != before:
                raise FilesChanged(f"files in {source.folder} changed while they were being loaded")
        except BaseException:
            room.close()
            raise
        return evaluator, witness

    def _evaluator(self, source: ModelSource, room: Room) -> Evaluator:
        questions = Questions(
            Guarded(open_asked(self.config, source.head)),
            {
                "validation": self.validation,
                "confirm": self.confirm,
                "test": self.test,
                "guard": self.general_text,
                "sample": self.sample,
            },
            self.config.search.chunks,
            self.objective,
            self.study_id,
        )
        hosting = Hosting(
            self.device,
            self.config.tokens_per_batch,
            self.searched,
            room,
            factored=self.config.products == "factored",
            inputs=self.inputs,
        )
        return open_evaluator(source, questions, self.config.factors, hosting)

    def room(self) -> Room:
        """Where this worker keeps activations: its own memory, or what the node shares."""
        reuse = self.config.reuse
        memory, host = (int(gib * GIB) for gib in (reuse.memory_gib, reuse.host_gib))
        if not reuse.file_gib:
            return Room(memory, host)
        try:
            scratch = SharedScratch(self.study_id, reuse.folder)
            free = shutil.disk_usage(scratch.path).free // 2
        except OSError:  # a worker without a scratch folder is slower, not broken
            return Room(memory, host)
        if self.workers > 1 and self.device == "cpu":
            memory = 0
        return Room(memory, host, min(int(reuse.file_gib * GIB), free), scratch)


class StudyWorker(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Evaluates one job after another; the actor, its model and its factors stay.

    Without a job it loads the model and records what trials begin from, to be ready for one.
    """

    def setup(self, config: dict[str, Any], blueprint: Blueprint) -> None:
        """Build the evaluator once. A failure is kept and reported by `step`, as a sentence."""
        self._blueprint = blueprint
        self._folder = Path(blueprint.folder)
        self._shares_folder = _shares(self._folder, blueprint.study_id)
        self._run: Generator[Progress, None, None] | None = None
        self._readying: Iterator[int] | None = None
        self._broken: str | None = None
        self._failure: Exception | None = None
        started = time.perf_counter()
        if blueprint.driver is not None:
            end_with(blueprint.driver)
        try:
            self._evaluator, self._witness = blueprint.build()
        except Exception as error:  # raising here would kill the actor and lose the reason
            self._broken = _sentence(error)
        self._log("setup", seconds=round(time.perf_counter() - started, 3), error=self._broken)
        self._job = _job(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job; whatever the last one edited is restored first."""
        self._close()
        self._job = _job(new_config)
        return True

    def give(self, job: str) -> None:
        """Take the next job within the same Tune trial. Never raises: nobody would hear of it."""
        try:
            self.reset_config({"job": job})
        except Exception as error:
            self._failure = error  # the model may be edited still: the next step ends this actor

    def cleanup(self) -> None:
        """Restore the model."""
        self._close()
        if self._broken is None:
            self._evaluator.close()

    def step(self) -> dict[str, Any]:
        """Evaluate one chunk. Does not raise what a job raises: it would cost a model load."""
        if self._failure is not None:
            raise self._failure
        if self._broken is not None:
            return {METRIC: float("nan"), "broken": self._broken, "done": True}
        try:
            return self._get_ready() if self._job is None else self._advance(self._job)
        except FilesChanged as error:
            self._close()
            self._broken = str(error)
            return {METRIC: float("nan"), "broken": self._broken, "done": True}
        except Exception as error:
            self._log("failed", job=self._job and self._job.name, error=_sentence(error))
            result: dict[str, Any] = {METRIC: float("nan"), "ended": True}
            if isinstance(error, NonFiniteLogits):
                return {**result, "error": _sentence(error), "kind": "not finite"}
            if is_out_of_memory(error):
                result["kind"] = "out of memory"
            elif not isinstance(error, OSError):
                return {**result, "error": _sentence(error)}
            # The machine's failure, not the composition's: the study tries again elsewhere.
            self._close()
            return {**result, "died": _sentence(error)}

    def _get_ready(self) -> dict[str, Any]:
        """Record a chunk of what trials begin from."""
        if self._readying is None:
            self._readying = self._evaluator.get_ready()
        left = next(self._readying, 0)
        return {METRIC: 0.0, "done": left == 0, "finished": left == 0, "step": 0}

    def _advance(self, job: Job) -> dict[str, Any]:
        if self._run is None:
            if self._shares_folder and self._known(job):
                return {METRIC: 0.0, **ENDED}
            self._log("start", job=job.name, effect=job.effect)
            self._run = self._evaluator.run(job)
        progress = next(self._run)
        result: dict[str, Any] = {METRIC: progress.score, "step": progress.step, "done": False}
        if progress.chunk and self._blueprint.config.search.pruner == "race":
            result["chunk"] = json.dumps(dict(progress.chunk))  # flat, as Tune wants results
        if progress.evaluation is not None:
            self._witness.check()
            result |= ENDED
            if not (self._shares_folder and self._wrote(progress.evaluation)):
                result["outcomes"] = outcome_bytes(progress.evaluation)
            self._log("done", job=job.name, effect=job.effect, **_gpu_memory())
        return result

    def _wrote(self, evaluation: Evaluation) -> bool:
        """Whether the outcomes are in the folder; if not, the driver tries, and says why not."""
        try:
            write_outcomes(self._folder, evaluation)
        except OSError:
            return False
        return True

    def _known(self, job: Job) -> bool:
        """Whether an earlier driver's worker finished this very job before it could be told."""
        study_id = self._blueprint.study_id
        return read_outcomes(self._folder, job.name, study_id, job.effect) is not None

    def _close(self) -> None:
        self._readying = None
        if self._run is not None:
            self._run.close()
            self._run = None

    def _log(self, event: str, **facts: Any) -> None:
        """Append one line to this worker's log in the study folder, where it is shared."""
        if not self._shares_folder:
            return
        folder = self._folder / "logs"
        line = {"time": round(time.time(), 3), "event": event, **facts}
        with contextlib.suppress(OSError):  # a full disk must not cost the evaluation
            folder.mkdir(exist_ok=True)
            name = f"worker-{socket.gethostname()}-{os.getpid()}.jsonl"
            with (folder / name).open("a") as stream:
                stream.write(json.dumps(line) + "\n")


def _job(config: Mapping[str, Any]) -> Job | None:
    """The job of a Tune configuration; None: the worker is to get ready for one."""
    data = json.loads(config["job"])
    return None if data is None else Job.from_dict(data)


def _gpu_memory() -> dict[str, float]:
    """The most memory of its GPUs that this process has used, in GiB; nothing where it has none."""
    used = sum(torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count()))
    return {"gpu_gib": round(used / GIB, 2)} if used else {}


def _shares(folder: Path, study_id: str) -> bool:
    """Whether this machine sees the study's own folder, and not another of the same path."""
    try:
        return (folder / IDENTITY_FILE).is_file() and Identity.read(folder).study_id == study_id
    except ValueError:
        return False


def _sentence(error: Exception) -> str:
    """One line for a record: the kind of error and its first line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return printable(hide_secrets(f"{type(error).__name__}: {first}"))[:500]
