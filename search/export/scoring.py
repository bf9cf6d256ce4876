"""A model outside any study's worker, scored exactly as its trials were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.cuts.composition import Composition
from search.evaluation.evaluator import Evaluator, Questions
from search.evaluation.predictor import make_predictor
from search.plan import Plan, make_plan
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job, Part
from search.study.outcomes import Evaluation
from search.study.study_record import StudyRecord
from search.weights.edit import Editor
from search.weights.factors import FactorCache


class Scorer:
    """Asks models the questions of a study: same parts, batches and rules. `plan` is the study's.

    `baselines`: the unedited model's scores by part and task, for objectives relative to them.
    Evaluations carry the study's id and `effect`, so that they can be stored and read as its own.
    """

    parts: Sequence[Part] = ("validation", "test")

    def __init__(self, record: StudyRecord, effect: str) -> None:
        self.plan: Plan = make_plan(record.config)
        self._record, self._effect = record, effect
        baseline = record.summary.baseline
        self.baselines: dict[str, Mapping[str, float]] = {}
        if baseline is not None:
            self.baselines["validation"] = baseline.scores

    def score(
        self,
        model: Any,
        part: Part = "validation",
        tokenizer: Any = None,
        tokens_per_batch: int | None = None,
        heard: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        """Evaluate `model` on a part; it is left in evaluation mode, as it is.

        `tokenizer`: the base model's by default. `tokens_per_batch`: the study's by default.
        `heard` is told the batches that are done, and their number.
        """
        source, config = self.plan.source, self._record.config
        passes = ForwardPasses()
        predictor = make_predictor(
            source.head,
            model,
            source.tokenizer() if tokenizer is None else tokenizer,
            tokens_per_batch=tokens_per_batch or config.tokens_per_batch,
            chat=source.chat_template,
            passes=passes,
        )
        with tempfile.TemporaryDirectory() as scratch:
            questions = Questions(
                self.plan.task,
                self.plan.split.parts,
                config.search.chunks,
                self.plan.objective,
                self._record.identity.study_id,
            )
            editor = Editor(model, [], FactorCache(scratch))
            evaluator = Evaluator(editor, predictor, questions, passes)
            before = self.baselines.get(part)
            job = Job("export", Composition(), self._effect, part, baseline=before)
            return evaluator.evaluate(job, heard)
