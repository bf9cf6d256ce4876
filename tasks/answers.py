"""Outcomes of the three kinds of reply, for the tasks that score them in the usual way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tasks.base import Chosen, Completed, Example, Generated, Outcome
from tasks.matching import contains, f1, is_exact


def log_softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Normalise log-likelihoods in nats so that their exponentials sum to one.

    Where all are -inf there is nothing to normalise and they are returned as they are.
    """
    top = max(values)
    if math.isinf(top):
        return tuple(values)
    total = top + math.log(math.fsum(math.exp(value - top) for value in values))
    return tuple(value - total for value in values)


def argmax(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda index: (values[index], -index))


def score_classes(
    example: Example, log_probabilities: Sequence[float], right: int, names: Sequence[str]
) -> Outcome:
    """Score a distribution over classes: 1 when class `right` is the likeliest."""
    said = argmax(log_probabilities)
    probabilities = [math.exp(value) for value in log_probabilities]
    return Outcome(
        example.id,
        example.group,
        float(said == right),
        log_probabilities[right],
        names[said],
        confidence=probabilities[said],
        brier=math.fsum((p - (n == right)) ** 2 for n, p in enumerate(probabilities)),
    )


def score_chosen(example: Example, reply: Chosen) -> Outcome:
    """Score a choice: 1 when `example.label` has the highest summed log-likelihood.

    The log-probability is normalised over the choices.
    """
    if example.label is None:
        raise ValueError(f"example {example.id} has choices but no label")
    outcome = score_classes(
        example, log_softmax(reply.log_likelihoods), example.label, example.choices
    )
    return replace(outcome, tokens=reply.lengths_tokens[example.label])


def score_completed(example: Example, reply: Completed) -> Outcome:
    """Score an open answer: 1 when greedy decoding says every token of it."""
    return Outcome(
        example.id,
        example.group,
        float(reply.greedy),
        reply.log_likelihood,
        reply.text.strip(),
        rank=reply.rank,
        tokens=reply.length_tokens,
    )


def score_generated(example: Example, reply: Generated, *, whole: bool = True) -> Outcome:
    """Score a generated text: 1 when it contains the answer as whole words, whatever case.

    `whole`: the text is all that the model would say, so F1 and exact match are measured too; not
    where decoding ended at the answer.
    """
    text = reply.text.strip()
    measures = {
        "f1": f1(text, example.answer),
        "exact": float(is_exact(text, example.answer)),
    }
    return Outcome(
        example.id,
        example.group,
        float(contains(text, example.answer)),
        reply.log_likelihood,
        text,
        tokens=reply.answer_tokens,
        measures=measures if whole else {},
    )
