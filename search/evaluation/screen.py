"""What one backward pass says of every cut at once: the change of the loss, to first order.

Cutting W to W' changes the loss by about ⟨∂L/∂W, W' − W⟩; for leading triples this is
−Σ_{i>r} σ_i uᵢᵀ (∂L/∂W) vᵢ, so one gradient per matrix and its factors serve every rank. Gradients
are taken matrix by matrix as the backward pass reaches them and dropped; of few tokens they are not
even formed (search/evaluation/gradients.py).
First order is crude for a cut this large; it orders candidates, and trials decide (docs/log.md).

What a cut costs on text that the model predicts well is not of first order: the slope there is near
zero, and the loss rises with its curvature. That is estimated by the spread of slopes over texts
(the empirical Fisher information), for which the same backward passes are taken text by text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from search.cuts.composition import Intervention
from search.cuts.refs import MatrixRef
from search.evaluation.gradients import Gradient, gradients_of, noting_calls
from search.evaluation.predictor import RecordingPredictor
from search.evaluation.requests import PreparedRequests
from search.reuse.batching import Batch
from search.reuse.forward import ForwardPasses
from search.study.objective import Objective
from search.study.screening import COSTED_PARTS, Slopes, mean_changes, mean_costs
from search.weights.edit import Editor
from search.weights.matrices import Matrix
from tasks.base import (
    Chosen,
    Classified,
    Completed,
    Example,
    Generated,
    Outcome,
    Reply,
    Task,
    TokenNlls,
    Weighed,
)

STEP = 1e-4
"""Nats by which a reply is moved either way, to see what its log-probabilities are worth."""

SCALE = 2.0**10
"""The loss is scaled up for the backward pass, so that float16 gradients do not vanish."""

FIELDS: dict[type, str] = {
    Chosen: "log_likelihoods",
    Weighed: "log_likelihoods",
    Classified: "log_probabilities",
    Completed: "log_likelihood",
    Generated: "log_likelihood",
    TokenNlls: "nats",
}
"""What of a reply its score depends on smoothly."""


@dataclass(frozen=True)
class Asking:
    """What is asked of which unedited model: slopes are those of `predictor`'s model.

    `editor` is of the same model, and has the factors; `passes` are those of the predictor.
    """

    editor: Editor
    predictor: RecordingPredictor
    task: Task
    passes: ForwardPasses


def slopes_of(
    asking: Asking, examples: Sequence[Example], candidates: Sequence[Intervention]
) -> list[Slopes]:
    """How the mean log-loss of the examples changes with every candidate alone, task by task.

    0 throughout for a task that asks nothing with a log-probability. The model's bytes stay.
    """
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        tasks[example.task].append(example)
    return [_slopes(asking, label, own, candidates) for label, own in tasks.items()]


def predict_changes(
    asking: Asking,
    examples: Sequence[Example],
    candidates: Sequence[Intervention],
    objective: Objective,
) -> dict[Intervention, float]:
    """Predicted change of the mean log-loss, in nats, of every candidate alone; below 0 helps.

    Of the unedited model on `examples`; of several tasks the objective's mean. To first order the
    changes of a composition add up. The kind of each candidate says how. The model's bytes stay.
    Raises InputError if the task asks nothing that has a log-probability.
    """
    return mean_changes(slopes_of(asking, examples, candidates), objective)


def predict_costs(
    asking: Asking, texts: Sequence[Example], candidates: Sequence[Intervention]
) -> dict[Intervention, float]:
    """Predicted rise of the mean log-loss on `texts`, in nats, of every candidate alone.

    By the slopes of COSTED_PARTS parts, see `mean_costs`. The model's bytes stay.
    """
    parts = [texts[n::COSTED_PARTS] for n in range(COSTED_PARTS)]
    return mean_costs([one for part in parts for one in slopes_of(asking, part, candidates)])


def _slopes(
    asking: Asking, label: str, examples: Sequence[Example], candidates: Sequence[Intervention]
) -> Slopes:
    editor, predictor, task, passes = asking.editor, asking.predictor, asking.task, asking.passes
    editor.restore()
    seen = _Seen(editor, candidates)
    prefix, first = passes.prefix, passes.prefix.blocks.first_of(seen.cuts)
    prepared = predictor.prepare([task.request(x, predictor.head) for x in examples])
    with passes.keeping_for_now(first):
        with noting_calls(seen.modules) as called:
            replies = predictor.answer(prepared)
        outcomes = [task.outcome(x, reply) for x, reply in zip(examples, replies, strict=True)]
        total = math.fsum(outcome.weight for outcome in outcomes)
        slopes = _loss_slopes(task, examples, replies, outcomes, total)
        if any(any(found) for found in slopes):
            weights = _by_slot(prepared, slopes)
            prefix.start, prefix.ahead = first, ()  # no block before it has a gradient
            with gradients_of(editor.model, seen.matrices, called, seen.add):
                for batch in prepared.batches:
                    passes.run(batch, partial(_backward, predictor, prepared, weights, seen))
    return Slopes(label, total, seen.changes())


def _loss_slopes(
    task: Task,
    examples: Sequence[Example],
    replies: Sequence[Reply],
    outcomes: Sequence[Outcome],
    total: float,
) -> list[list[float]]:
    """By example: the slope of the mean log-loss in each log-probability of its reply.

    The task's own scoring is differentiated numerically, in float64: whatever it normalises over
    is in it. `total`: what the examples weigh.
    """
    return [
        [-outcome.weight / (total or 1.0) * slope for slope in _reply_slopes(task, example, reply)]
        for example, reply, outcome in zip(examples, replies, outcomes, strict=True)
    ]


def _reply_slopes(task: Task, example: Example, reply: Reply) -> list[float]:
    """The slope of the right answer's log-probability in each value of the reply."""
    name = FIELDS[type(reply)]
    own = getattr(reply, name)
    values = own if isinstance(own, tuple) else (own,)

    def moved(place: int, step: float) -> float:
        near = tuple(value + step * (n == place) for n, value in enumerate(values))
        changed: Any = {name: near if isinstance(own, tuple) else near[0]}
        return task.outcome(example, replace(reply, **changed)).log_probability

    sign = -1 if isinstance(reply, TokenNlls) else 1  # nats are minus a log-probability
    return [sign * (moved(n, STEP) - moved(n, -STEP)) / (2 * STEP) for n in range(len(values))]


def _by_slot(prepared: Any, slopes: Sequence[Sequence[float]]) -> Tensor:
    """`slopes` where the predictor has the log-probabilities: [slots], or [texts, labels]."""
    if not isinstance(prepared, PreparedRequests):
        return torch.tensor(slopes)
    weights = torch.zeros(prepared.slots)
    for spans, values in zip(prepared.spans, slopes, strict=True):
        for span, value in zip(spans, values, strict=False):  # an open text has no answer
            weights[span.start : span.stop] = value
    return weights


def _backward(
    predictor: RecordingPredictor, prepared: Any, weights: Tensor, seen: _Seen, batch: Batch
) -> Tensor:
    """One batch forward and backward; what it says counts only if it got to its end."""
    seen.begin()
    with torch.enable_grad():
        values = predictor.log_probabilities(prepared, batch)
        own = weights[batch.slots.cpu()].to(values.device)
        loss = (values.float() * own).sum() * SCALE
        loss.backward()  # type: ignore[no-untyped-call]
    seen.commit()
    return loss.detach()[None]


class _Seen:
    """Collects, matrix by matrix, the slope of the loss towards each cut."""

    def __init__(self, editor: Editor, candidates: Sequence[Intervention]) -> None:
        self._editor = editor
        self._candidates = candidates
        self.cuts: dict[MatrixRef, dict[str, list[Intervention]]] = {}
        for cut in dict.fromkeys(candidates):
            self.cuts.setdefault(cut.matrix, {}).setdefault(cut.kind, []).append(cut)
        self.matrices = [editor.matrix(ref) for ref in self.cuts]
        self._sums: dict[MatrixRef, Tensor] = {}
        self._fresh: dict[MatrixRef, Tensor] = {}

    @property
    def modules(self) -> list[nn.Module]:
        """Those that own the matrices."""
        return [self._editor.model.get_submodule(matrix.module) for matrix in self.matrices]

    def begin(self) -> None:
        """Forget what an interrupted batch left."""
        self._fresh = {}

    def commit(self) -> None:
        """Add a whole batch."""
        for ref, value in self._fresh.items():
            self._sums[ref] = self._sums.get(ref, 0) + value
        self._fresh = {}

    def add(self, matrix: Matrix, gradient: Gradient) -> None:
        """Take a part of the gradient G of a matrix W: ⟨G, W' − W⟩ for every cut W' of it."""
        ref, found = matrix.ref, []
        weight = matrix.view.of(self._editor.parameter(ref).detach()).reshape(matrix.shape)
        for cuts in self.cuts[ref].values():
            rules, source = [cut.rule for cut in cuts], self._editor.source(cuts[0])
            found.append(cuts[0].made_by.first_order(rules, weight, gradient, source))
        self._fresh[ref] = self._fresh.get(ref, 0) + torch.cat(found) / SCALE

    def changes(self) -> dict[Intervention, float]:
        """The predicted change of the loss by candidate; 0 where no loss depends on the matrix."""
        found: dict[Intervention, float] = {}
        for ref, kinds in self.cuts.items():
            cuts = [cut for same in kinds.values() for cut in same]
            values = self._sums[ref].tolist() if ref in self._sums else [0.0] * len(cuts)
            found.update(zip(cuts, values, strict=True))
        return {cut: found[cut] for cut in self._candidates}
