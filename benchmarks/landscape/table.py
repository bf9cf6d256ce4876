"""A table of complete truth: what a model answers under every composition that was ever asked.

A folder holds ``study.yaml`` (model, questions, space) and ``truth-*.parquet``: one row for each
composition and part of the data, with the score and the log-probability of every question. What is
asked and not in the table is evaluated and added, so a replay is exact and never an estimate.
The part ``guard`` is general text, where ``study.yaml`` has it: a passage for a question, its score
the mean log-likelihood per token.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.config import StudyConfig, read_config, write_config
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from search.durable import write_file, write_text
from search.evaluation.evaluator import (
    ON_GENERAL_TEXT,
    Evaluator,
    Hosting,
    Progress,
    Questions,
    open_evaluator,
)
from search.evaluation.screen import Asking, predict_changes, predict_costs
from search.model import own_device
from search.plan import Plan, make_plan
from search.study.jobs import Job
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.race import seeded_order
from search.weights.spectra import Spectrum
from tasks.base import Example, Outcome
from tasks.guarded import GENERAL_TEXT, Guarded
from tasks.scoring import mean_quadratic_score

CONFIG, WORDS = "study.yaml", "words.json"


@dataclass(frozen=True)
class Truth:
    """One composition on one part: by question, in the order of the part.

    `scores` and `log_probabilities` [questions] float64, `said` [questions]: places in the table's
    words. `forward_s`: what its evaluation took. `weights` [questions] float64: how much each
    counts, a passage by its tokens.
    """

    composition: str
    scores: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]
    said: NDArray[np.int32]
    forward_s: float
    weights: NDArray[np.float64]

    @property
    def score(self) -> float:
        """Mean score."""
        return float(np.average(self.scores, weights=self.weights))

    @property
    def log_loss(self) -> float:
        """Mean negative log-probability of the right answers, in nats."""
        return -float(np.average(self.log_probabilities, weights=self.weights))


class Landscape:
    """The table of one model, open for questions; `save` keeps what was added."""

    def __init__(self, folder: Path) -> None:
        """Read the table in `folder`, which `create` made."""
        self.folder = folder
        self.config: StudyConfig = read_config(folder / CONFIG)
        self.plan: Plan = make_plan(self.config)
        self.added = 0
        self._truth: dict[tuple[str, str], Truth] = {}
        self._unsaved: list[tuple[str, str]] = []
        self._words: dict[str, int] = {}
        self._evaluators: dict[str, Evaluator] = {}
        self._load()

    @staticmethod
    def create(config: StudyConfig, folder: Path) -> Landscape:
        """Begin a table in `folder`, or open the one that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CONFIG).exists():
            write_config(config, folder / CONFIG)
        return Landscape(folder)

    @cached_property
    def layers(self) -> int:
        """Blocks of the model."""
        return len({matrix.ref.layer for matrix in self.plan.matrices})

    def examples(self, part: str) -> Sequence[Example]:
        """The questions of a part."""
        return self.plan.parts[part]

    def effect(self, composition: Composition) -> str:
        """What a composition does to this model; the key of the table."""
        return composition.effect(self.plan.max_ranks)

    def passes(self, effect: str) -> float:
        """What a trial costs in forward passes: those blocks that it cannot take over."""
        if not effect:
            return 1.0
        first = min(int(part.split(".")[0]) for part in effect.split())
        return (self.layers - first) / self.layers

    def effects(self, part: str = "validation") -> dict[str, Truth]:
        """Everything that is known of a part, by effect."""
        return {effect: truth for (own, effect), truth in self._truth.items() if own == part}

    def knows(self, effect: str, part: str = "validation") -> bool:
        """Whether the table has it."""
        return (part, effect) in self._truth

    def truth(self, composition: Composition, part: str = "validation") -> Truth:
        """What the model answers; evaluated if the table does not say."""
        effect = self.effect(composition)
        key = (part, effect)
        if key not in self._truth:
            self._truth[key] = self._evaluate(composition, effect, part)
            self._unsaved.append(key)
            self.added += 1
        return self._truth[key]

    def save(self) -> None:
        """Keep what was added since the last time, in a file of its own."""
        if not self._unsaved:
            return
        words = [word for word, _ in sorted(self._words.items(), key=lambda item: item[1])]
        rows = [(part, effect, self._truth[part, effect]) for part, effect in self._unsaved]
        table = pa.table(
            {
                "part": [part for part, _, _ in rows],
                "effect": [effect for _, effect, _ in rows],
                "composition": [truth.composition for _, _, truth in rows],
                "score": [truth.score for _, _, truth in rows],
                "log_loss": [truth.log_loss for _, _, truth in rows],
                "forward_s": [truth.forward_s for _, _, truth in rows],
                "scores": [truth.scores for _, _, truth in rows],
                "log_probabilities": [truth.log_probabilities for _, _, truth in rows],
                "said": [truth.said for _, _, truth in rows],
                "weights": [truth.weights for _, _, truth in rows],
            },
            metadata={WORDS: json.dumps(words)},
        )
        path = self.folder / f"truth-{time.time_ns()}-{uuid.uuid4().hex[:6]}.parquet"
        write_file(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
        self._unsaved.clear()

    def gather(self) -> None:
        """Put everything into one file, where rows were saved one by one, or by others."""
        self.save()
        self._load()
        before = sorted(self.folder.glob("truth-*.parquet"))
        if len(before) > 1:
            self._unsaved = list(self._truth)
            self.save()
            for path in before:
                path.unlink()

    def grid(self) -> dict[str, Composition]:
        """Every single cut of the space, by effect."""
        space = self.plan.space
        cuts = [Intervention(m, level) for m in space.matrices for level in space.levels]
        singles = [Composition((cut,)) for cut in cuts]
        found = {self.effect(single): single for single in reversed(singles)}
        return {effect: found[effect] for effect in sorted(found) if effect}

    def spectra(self) -> dict[MatrixRef, Spectrum]:
        """The singular values of every matrix that may be cut."""
        evaluator = self._evaluator("validation")
        return {
            matrix.ref: Spectrum(
                *(str(matrix.ref), self.plan.source.path, matrix.module, matrix.shape),
                evaluator.editor.source(_half(matrix.ref)).factors(0).spectrum.double().numpy(),
            )
            for matrix in self.plan.searched
        }

    def screen(
        self, seed: int, count: int, among: Sequence[Example] | None = None
    ) -> dict[Intervention, float]:
        """What a gradient on `count` questions of validation predicts of every single cut.

        `among`: the same questions with other answers.
        """
        known = list(among or self.examples("validation"))
        examples = random.Random(seed).sample(known, min(count, len(known)))
        evaluator, space = self._evaluator("validation"), self.plan.space
        cuts = [Intervention(m, level) for m in space.matrices for level in space.levels]
        asking = Asking(evaluator.editor, evaluator._predictor, self.plan.task, evaluator.passes)
        return predict_changes(asking, examples, cuts, self.plan.objective)

    def costs(self) -> dict[Intervention, float]:
        """What gradients on the general text predict that every single cut costs there, in nats."""
        evaluator, space = self._evaluator("guard"), self.plan.space
        cuts = [Intervention(m, level) for m in space.matrices for level in space.levels]
        task = Guarded(self.plan.task)
        asking = Asking(evaluator.editor, evaluator._predictor, task, evaluator.passes)
        return predict_costs(asking, self.examples("guard"), cuts)

    def evaluation(self, job: Job, examples: Sequence[Example] | None = None) -> Evaluation:
        """The evaluation that an evaluator would make of a job, on `examples` of its part."""
        part = job.part if job.part == "test" else "validation"
        truth = self.truth(job.composition, part)
        outcomes = self._outcomes(truth, part)
        if examples is not None:
            outcomes = [outcomes[x.id] for x in examples]
        chosen = tuple(outcomes.values()) if isinstance(outcomes, dict) else tuple(outcomes)
        return Evaluation(
            name=job.name,
            study="",
            composition=str(job.composition),
            effect=job.effect,
            part=job.part,
            score=sum(o.score for o in chosen) / len(chosen),
            log_loss=-sum(o.log_probability for o in chosen) / len(chosen),
            seconds={"forward": truth.forward_s},
            outcomes=chosen,
            scores=self._beside(job),
            quadratic=mean_quadratic_score(chosen),
        )

    def _beside(self, job: Job) -> dict[str, float]:
        """What a trial says of general text, where that has a limit."""
        if self.plan.objective.guard is None or job.part != "validation":
            return {}
        return {GENERAL_TEXT: self.truth(job.composition, "guard").score}

    def _outcomes(self, truth: Truth, part: str) -> dict[str, Outcome]:
        words = list(self._words)
        return {
            example.id: Outcome(example.id, example.group, score, log_probability, words[said])
            for example, score, log_probability, said in zip(
                self.examples(part),
                truth.scores.tolist(),
                truth.log_probabilities.tolist(),
                truth.said.tolist(),
                strict=True,
            )
        }

    def _evaluate(self, composition: Composition, effect: str, part: str) -> Truth:
        job = Job(effect or "baseline", composition, effect, "validation")
        found = self._evaluator(part).evaluate(job)
        return Truth(
            str(composition),
            np.array([o.score for o in found.outcomes]),
            np.array([o.log_probability for o in found.outcomes]),
            np.array([self._place(o.prediction or "") for o in found.outcomes], np.int32),
            found.seconds["forward"],
            np.array([o.weight for o in found.outcomes]),
        )

    def _evaluator(self, part: str) -> Evaluator:
        """The model; either part is `validation` to an evaluator of its own, which records it."""
        if part not in self._evaluators:
            own = ON_GENERAL_TEXT if part == "guard" else None
            self._evaluators[part] = open_evaluator(
                self.plan.source,
                Questions(
                    Guarded(self.plan.task), {"validation": self.examples(part)}, objective=own
                ),
                self.config.factors,
                Hosting(
                    device=own_device(),
                    tokens_per_batch=self.config.tokens_per_batch,
                    searched=set(self.plan.space.matrices),
                ),
            )
        return self._evaluators[part]

    def _place(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _load(self) -> None:
        for path in sorted(self.folder.glob("truth-*.parquet")):
            table = pq.ParquetFile(path).read()
            words = json.loads(table.schema.metadata[WORDS.encode()])
            places = np.array([self._place(word) for word in words], np.int32)
            lists = ("scores", "log_probabilities", "said", "weights")
            columns = {name: _rows(table[name]) for name in lists if name in table.column_names}
            # A table of before there was a part of texts has no weights: each question counts once.
            weights = columns.get("weights") or [np.ones(len(row)) for row in columns["scores"]]
            names = zip(
                *(table[n].to_pylist() for n in ("part", "effect", "composition", "forward_s")),
                strict=True,
            )
            for row, (part, effect, composition, forward_s) in enumerate(names):
                self._truth[part, effect] = Truth(
                    composition,
                    columns["scores"][row],
                    columns["log_probabilities"][row],
                    places[columns["said"][row]],
                    forward_s,
                    weights[row],
                )


def _half(ref: MatrixRef) -> Intervention:
    """A cut that needs the factors of a matrix; their spectrum is whole whatever is kept."""
    return Intervention(ref, Level(RankRule("rho", 0.5)))


def _rows(column: pa.ChunkedArray) -> list[NDArray[np.generic]]:
    """The lists of a column as arrays."""
    found = []
    for chunk in column.chunks:
        values, bounds = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        found += [values[a:b] for a, b in pairwise(bounds)]
    return found


class TableEvaluator:
    """An evaluator that reads from a table, and counts what a real one would have computed.

    `examples`: the questions of each part, where a part is not the table's own. `passes` counts
    forward passes of validation, of which a trial that begins at block l of L takes (L - l) / L,
    and one that is stopped early its share. `objective`: where that is not the table's own.
    """

    def __init__(
        self,
        landscape: Landscape,
        chunks: int = 1,
        examples: dict[str, Sequence[Example]] | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.landscape = landscape
        self._paired = (objective or landscape.plan.objective).paired
        self.passes = 0.0
        self._chunks = chunks
        self._examples = examples or {}

    def run(self, job: Job) -> Iterator[Progress]:
        """The chunks that an evaluator would give."""
        whole = self.evaluate(job)
        cost = self.landscape.passes(job.effect) if job.part != "test" else 0.0
        chunks = self._chunks if job.part == "validation" else 1
        order = whole.outcomes
        if chunks > 1:
            order = sorted(order, key=lambda outcome: seeded_order(outcome.example_id))
        done = 0
        for step in range(1, chunks + 1):
            stop = -(-len(order) * step // chunks)
            chunk = {o.example_id: self._paired(o) for o in order[done:stop]}
            self.passes += cost * (stop - done) / len(order)
            done = stop
            score = sum(o.score for o in order[:done]) / done if chunks > 1 else whole.score
            if step < chunks:
                yield Progress(step, score, None, chunk)
        yield Progress(chunks, score, whole)

    def evaluate(self, job: Job) -> Evaluation:
        """Evaluate a job to its end."""
        return self.landscape.evaluation(job, self._examples.get(job.part))

    def close(self) -> None:
        """Nothing is edited."""


def note(path: Path, text: str) -> None:
    """Durably write what a script found."""
    write_text(path, text)
