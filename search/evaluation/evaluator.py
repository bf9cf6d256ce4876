"""A resident model with its questions: compositions are applied, evaluated and taken back."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import torch

from search.cuts.kinds.base import Inputs
from search.cuts.refs import MatrixRef
from search.evaluation.finite import first_non_finite
from search.evaluation.predictor import NonFiniteLogits, RecordingPredictor, make_predictor
from search.evaluation.screen import Asking, slopes_of
from search.model import ModelSource
from search.reuse.activations import Room
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job
from search.study.objective import Goal, Objective
from search.study.outcomes import Evaluation
from search.study.race import seeded_order
from search.study.screening import own_share
from search.weights.edit import Editor
from search.weights.matrices import Matrix, all_matrices
from search.weights.remote import open_factors
from tasks.base import Example, Outcome, Reply, Task
from tasks.guarded import GENERAL_TEXT
from tasks.metrics import PERPLEXITY
from tasks.scoring import by_task, mean_log_loss, mean_quadratic_score, mean_score

ON_GENERAL_TEXT = Objective((Goal(GENERAL_TEXT, PERPLEXITY),))
"""What the part ``guard`` is worth, whatever the study looks for."""


@dataclass(frozen=True)
class Progress:
    """After `step` chunks: the value so far, and the evaluation when it is whole.

    `chunk`: what a race compares of the last chunk's examples, by id, before the last step.
    """

    step: int
    score: float
    evaluation: Evaluation | None
    chunk: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Questions:
    """What an evaluator asks: a task, its examples by part, and what becomes of their scores.

    The part ``sample`` is general text that is scored with every job of validation, by a task that
    is `Guarded`. `chunks`: the pieces that validation is reported in. Without an `objective` the
    value is the mean score of the one task. `study_id` goes into every evaluation.
    """

    task: Task
    parts: Mapping[str, Sequence[Example]]
    chunks: int = 1
    objective: Objective | None = None
    study_id: str = ""

    @property
    def scored(self) -> Objective:
        """The objective, given or by default."""
        return self.objective or Objective((Goal("", self.task.metric),))


@dataclass(frozen=True)
class Hosting:
    """How a model is held in memory, and what of it may be edited.

    `searched`: matrices that jobs may edit (default: all), before whose blocks activations are
    kept, as far as `room` goes. `factored`: small ranks multiply as two thin factors. `further`:
    matrices that may be edited beside those that are found, such as all of a fused weight.
    `inputs`: what matrices are given, where that was measured, for kinds of cut that need it.
    """

    device: str | torch.device = "cpu"
    tokens_per_batch: int = 4096
    searched: Collection[MatrixRef] | None = None
    room: Room | None = None
    factored: bool = False
    further: Sequence[Matrix] = ()
    inputs: Mapping[MatrixRef, Inputs] = field(default_factory=dict)


class Evaluator:
    """Evaluates jobs on one model, which it edits and restores bit for bit.

    The activations of validation are recorded once, on the unedited model; a job begins at the
    block that it edits first. The model keeps a job's edits until the next job, which changes only
    what differs, or until `close`; an error or an early end restores it at once.

    Every job sees the same examples in the same order: chunks are drawn once, by a hash of the
    example's id, so each is a fair sample, of every task where there are several. Requests are
    tokenised once and kept.
    """

    def __init__(
        self,
        editor: Editor,
        predictor: RecordingPredictor,
        questions: Questions,
        passes: ForwardPasses | None = None,
    ) -> None:
        """Nothing is tokenised yet.

        `passes`: those of the `predictor`, where its activations are to be reused.
        """
        self.passes = passes or ForwardPasses()
        self.editor = editor
        self._study_id = questions.study_id
        self._predictor = predictor
        self._task = questions.task
        self._parts = {name: tuple(examples) for name, examples in questions.parts.items()}
        self._chunks = {"validation": questions.chunks}
        self._objective = questions.scored
        self._prepared: dict[str, list[tuple[list[Example], Any]]] = {}

    def run(self, job: Job) -> Generator[Progress, None, None]:
        """Evaluate a job chunk by chunk; closing the iterator early restores the model too."""
        if job.part == "screen":
            yield Progress(1, 0.0, self._screen(job))
            return
        started = time.perf_counter()
        chunks = self._prepare(job.part)
        texts = self._prepare("sample") if job.part == "validation" else []
        beside: dict[str, float] = {}
        outcomes: dict[str, Outcome] = {}
        seconds = {"prepare": time.perf_counter() - started, "forward": 0.0, "score": 0.0}
        mark = time.perf_counter()
        try:
            if job.part == "validation":
                self._record([*chunks, *texts])
            seconds["record"] = time.perf_counter() - mark
            mark = time.perf_counter()
            self.editor.apply(job.composition)
            self.passes.prefix.start = self._start(job)
            self.passes.prefix.ahead = self._ahead(job)
            seconds["apply"] = time.perf_counter() - mark
            for step, (examples, prepared) in enumerate(chunks, start=1):
                mark = time.perf_counter()
                replies = self._answer(prepared)
                seconds["forward"] += time.perf_counter() - mark
                mark = time.perf_counter()
                for example, reply in zip(examples, replies, strict=True):
                    outcomes[example.id] = self._task.outcome(example, reply)
                score = self._objective_of(job).value(_scores(outcomes.values()), job.baseline)
                seconds["score"] += time.perf_counter() - mark
                if step < len(chunks):
                    paired = self._objective.paired
                    chunk = {example.id: paired(outcomes[example.id]) for example in examples}
                    yield Progress(step, score, None, chunk)
            if texts:  # last, so that a trial that is stopped early need not read them
                mark = time.perf_counter()
                beside[GENERAL_TEXT] = self._score_texts(texts)
                seconds["guard"] = time.perf_counter() - mark
        except BaseException:
            self.editor.restore()
            raise
        finally:
            self.passes.prefix.ahead = ()
        seconds["total"] = time.perf_counter() - started
        yield Progress(len(chunks), score, self._whole(job, outcomes, score, seconds, beside))

    def _score_texts(self, texts: Sequence[tuple[list[Example], Any]]) -> float:
        """The mean log-likelihood per token of general text, under the edits of the job."""
        return mean_score(
            [
                self._task.outcome(example, reply)
                for examples, prepared in texts
                for example, reply in zip(examples, self._answer(prepared), strict=True)
            ]
        )

    def _answer(self, prepared: Any) -> Sequence[Reply]:
        try:
            return self._predictor.answer(prepared)
        except NonFiniteLogits as error:
            name = first_non_finite(self.editor.model, lambda: self._predictor.answer(prepared))
            if name is None:
                raise
            raise NonFiniteLogits(f"{error}; the first that is not finite left {name}") from None

    def close(self) -> None:
        """Put every byte of the model back, and give up the folder of activations.

        The evaluator may be used again, but what other processes keep there is no longer its own.
        """
        self.editor.restore()
        self.passes.prefix.activations.room.close()

    def evaluate(
        self, job: Job, heard: Callable[[int, int], None] = lambda done, total: None
    ) -> Evaluation:
        """Evaluate a job to its end. `heard` is told the batches done, and their number."""
        total, done = self._batches(job.part), 0
        heard(done, total)

        def answered() -> None:
            nonlocal done
            done += 1
            heard(done, total)

        self.passes.answered = answered
        try:
            *_, last = self.run(job)
        finally:
            self.passes.answered = lambda: None
        if last.evaluation is None:
            raise AssertionError("the last progress carries the evaluation")
        return last.evaluation

    def tokens(self, part: str) -> int:
        """Tokens of a part's batches, padding included; of what is to be continued the questions.

        Nothing is asked.
        """
        batches = [b for _, one in self._prepare(part) for b in getattr(one, "batches", ())]
        return sum(batch.tokens for batch in batches) or len(self._parts[part])

    def seconds_of_pass(self, part: str) -> float:
        """Seconds that asking a part takes from the first block on, of the model as it is."""
        started = time.perf_counter()
        self.passes.prefix.start = 0
        for _, prepared in self._prepare(part):
            self._answer(prepared)
        return time.perf_counter() - started

    def _batches(self, part: str) -> int:
        """Batches that asking a part takes, prompts to be continued among them."""
        if part == "screen":
            return 0
        pieces = [*self._prepare(part), *(self._prepare("sample") if part == "validation" else [])]
        made = [prepared for _, prepared in pieces]
        return sum(len(getattr(one, name, ())) for one in made for name in ("batches", "prompts"))

    def _screen(self, job: Job) -> Evaluation:
        """One piece of the screen: the slopes towards every candidate on its examples."""
        started = time.perf_counter()
        order = sorted(self._parts["validation"], key=lambda example: seeded_order(example.id))
        own = own_share(job.piece, order, self._parts.get("sample", ()))
        asking = Asking(self.editor, self._predictor, self._task, self.passes)
        found = slopes_of(asking, own, job.screened)
        outcomes = tuple(outcome for one in found for outcome in one.outcomes())
        seconds = {"total": round(time.perf_counter() - started, 6)}
        return Evaluation(
            job.name, self._study_id, "", job.effect, job.part, 0.0, 0.0, seconds, outcomes
        )

    def _whole(
        self,
        job: Job,
        outcomes: Mapping[str, Outcome],
        score: float,
        seconds: dict[str, float],
        beside: dict[str, float],
    ) -> Evaluation:
        in_order = tuple(outcomes[example.id] for example in self._parts[job.part])
        losses = {task: mean_log_loss(found) for task, found in by_task(in_order).items()}
        rounded = {name: round(value, 6) for name, value in seconds.items()}
        return Evaluation(
            name=job.name,
            study=self._study_id,
            composition=str(job.composition),
            effect=job.effect,
            part=job.part,
            score=score,
            log_loss=self._objective_of(job).mean(losses),
            seconds=rounded,
            outcomes=in_order,
            truncated=sum(
                getattr(prepared, "truncated", 0) for _, prepared in self._prepared[job.part]
            ),
            quadratic=mean_quadratic_score(in_order),
            scores=beside | ({} if self._objective_of(job).single else _scores(in_order)),
        )

    def _start(self, job: Job) -> int:
        """The block where a pass of this job may begin; the unedited model is asked in full."""
        if job.part != "validation" and not job.composition.interventions:
            return 0
        return self.passes.prefix.blocks.first_edited(job.composition)

    def _ahead(self, job: Job) -> tuple[int, ...]:
        """The blocks before which this pass is to keep what compositions that follow begin from.

        What was recorded before is given up for it: the search is over.
        """
        prefix = self.passes.prefix
        found = sorted({prefix.blocks.first_edited(one) for one in job.ahead} - {0})
        if job.part == "validation" or job.composition.interventions or not found:
            return ()
        self.passes.forget_all()
        return tuple(found)

    def get_ready(self) -> Iterator[int]:
        """Record what trials begin from, chunk by chunk, each of which says how many are left.

        In an order of this process's own: processes that share a folder of activations each do
        some of it and take the rest from each other.
        """
        chunks = self._recorded_chunks()
        random.Random(os.getpid()).shuffle(chunks)  # noqa: S311  # no secret
        for left, chunk in reversed(list(enumerate(chunks))):
            self._record([chunk])
            yield left

    def _recorded_chunks(self) -> list[tuple[list[Example], Any]]:
        """What a trial is asked."""
        return [*self._prepare("validation"), *self._prepare("sample")]

    def _record(self, chunks: Sequence[tuple[list[Example], Any]]) -> None:
        missing = [p for _, p in chunks if not self.passes.recorded(*_passes_of(p))]
        if missing:
            self.editor.restore()
            self.passes.prefix.start = 0
            every = [_passes_of(p) for _, p in self._recorded_chunks()]
            batches, prompts = zip(*every, strict=True)
            self.passes.expect(chain.from_iterable(batches), chain.from_iterable(prompts))
            for prepared in missing:
                self._predictor.record(prepared)

    def _objective_of(self, job: Job) -> Objective:
        return ON_GENERAL_TEXT if job.part == "guard" else self._objective

    def _prepare(self, part: str) -> list[tuple[list[Example], Any]]:
        if part not in self._prepared:
            pieces = _pieces(self._parts.get(part, ()), self._chunks.get(part, 1))
            head = self._predictor.head
            self._prepared[part] = [
                (piece, self._predictor.prepare([self._task.request(x, head) for x in piece]))
                for piece in pieces
            ]
        return self._prepared[part]


def open_evaluator(
    source: ModelSource,
    questions: Questions,
    factors: str | os.PathLike[str],
    hosting: Hosting = Hosting(),  # frozen
) -> Evaluator:
    """Load the model and lay the questions before it. Raises InputError."""
    model = source.load(hosting.device)
    matrices = [*all_matrices(model), *hosting.further]
    store = open_factors(factors, inputs=hosting.inputs)
    editor = Editor(model, matrices, store, factored=hosting.factored)
    passes = ForwardPasses.of(model, matrices, hosting.searched, hosting.room)
    predictor = make_predictor(
        source.head,
        model,
        source.tokenizer(),
        tokens_per_batch=hosting.tokens_per_batch,
        chat=source.chat_template,
        passes=passes,
    )
    return Evaluator(editor, predictor, questions, passes)


def _passes_of(prepared: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Batches that are scored, and of prompts that are continued."""
    return getattr(prepared, "batches", ()), getattr(prepared, "prompts", ())


def _pieces(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """`count` fair samples, fewer where there are not as many examples, every task in the first."""
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: seeded_order(example.id)):
        tasks[example.task].append(example)
    count = min(count, max(map(len, tasks.values()), default=0))
    pieces: list[list[Example]] = [[] for _ in range(count)]
    for found in tasks.values():
        bounds = [-(-len(found) * i // count) for i in range(count + 1)]
        for piece, (a, b) in zip(pieces, pairwise(bounds), strict=True):
            piece.extend(found[a:b])
    return pieces


def _scores(outcomes: Iterable[Outcome]) -> dict[str, float]:
    return {task: mean_score(found) for task, found in by_task(outcomes).items()}
