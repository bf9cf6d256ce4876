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


ULPS = 4
"""Steps of float32 by which log-likelihoods may differ and be equal: what their sums round by."""
NAMED = 3
"""Answers named where more tie."""


def at_top(log_likelihoods: Sequence[float], *, flat: bool = False) -> tuple[int, ...]:
    """Places of the answers that tie for the largest of `log_likelihoods`, in nats, in order.

    They are equal where they differ by at most `ULPS` steps of float32, in which logits become
    log-probabilities, relative to the larger or to one nat. `flat`: all of them.
    """
    if flat:
        return tuple(range(len(log_likelihoods)))
    top = max(log_likelihoods)
    near = ULPS * 2.0**-23 * max(1.0, abs(top)) if math.isfinite(top) else 0.0
    return tuple(
        place for place, value in enumerate(log_likelihoods) if value == top or top - value <= near
    )


def said(names: Sequence[str], top: Sequence[int]) -> str:
    """The answer at the top, or those that tie there: they are all that the model says."""
    more = ["..."] if len(top) > NAMED else []
    return " | ".join([names[place] for place in top[:NAMED]] + more)


def score_classes(
    example: Example,
    log_probabilities: Sequence[float],
    right: int,
    names: Sequence[str],
    top: Sequence[int] | None = None,
) -> Outcome:
    """Score a distribution over classes: 1 when class `right` is the likeliest, 1/k of k that tie.

    `top`: the classes that tie, where other values than these decide.
    """
    top = at_top(log_probabilities) if top is None else top
    probabilities = [math.exp(value) for value in log_probabilities]
    return Outcome(
        example.id,
        example.group,
        1 / len(top) if right in top else 0.0,
        log_probabilities[right],
        said(names, top),
        confidence=1 / len(names) if len(top) == len(names) else probabilities[top[0]],
        brier=math.fsum((p - (n == right)) ** 2 for n, p in enumerate(probabilities)),
        tied=len(top),
    )


def score_chosen(example: Example, reply: Chosen) -> Outcome:
    """Score a choice: 1 when `example.label` has the highest summed log-likelihood, 1/k of a tie.

    The log-probability is normalised over the choices.
    """
    if example.label is None:
        raise ValueError(f"example {example.id} has choices but no label")
    outcome = score_classes(
        example,
        log_softmax(reply.log_likelihoods),
        example.label,
        example.choices,
        at_top(reply.log_likelihoods, flat=reply.flat),
    )
    return replace(outcome, tokens=reply.lengths_tokens[example.label])


def score_completed(example: Example, reply: Completed) -> Outcome:
    """Score an open answer: 1 when greedy decoding says every token of it, its share of a tie."""
    return Outcome(
        example.id,
        example.group,
        float(reply.greedy),
        reply.log_likelihood,
        reply.text.strip(),
        rank=reply.rank,
        tokens=reply.length_tokens,
        tied=reply.tied,
        rank_tied=reply.rank_tied,
    )


def score_generated(example: Example, reply: Generated, *, whole: bool = True) -> Outcome:
    """Score a generated text: 1 when it contains the answer as whole words, whatever case.

    Where tokens tied, the mean over the texts that they lead to.

    `whole`: the text is all that the model would say, so F1 and exact match are measured too; not
    where decoding ended at the answer.
    """
    text = reply.text.strip()
    measures = {
        "f1": reply.mean(lambda text: f1(text, example.answer)),
        "exact": reply.mean(lambda text: float(is_exact(text, example.answer))),
    }
    return Outcome(
        example.id,
        example.group,
        reply.mean(lambda text: float(contains(text, example.answer))),
        reply.log_likelihood,
        text,
        tokens=reply.answer_tokens,
        tied=reply.tied,
        measures=measures if whole else {},
    )
