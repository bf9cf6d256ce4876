"""How a score is shown: a search maximises scores, people read metrics."""

from __future__ import annotations

import math

PERPLEXITY = "perplexity"
"""The metric whose score is minus the mean negative log-likelihood per token, in nats."""
PERPLEXITIES = (PERPLEXITY, "word_perplexity", "byte_perplexity")
"""The same, and of lm-evaluation-harness those per word and per byte."""


def is_perplexity(metric: str) -> bool:
    """Whether less is better and the score is minus a mean log-likelihood."""
    return metric in PERPLEXITIES


def shown(metric: str, score: float) -> float:
    """The value of `metric` for a mean `score`: exp(-score) for perplexity, else the score."""
    if not is_perplexity(metric):
        return score
    return math.exp(-score) if score > -700 else math.inf


def shown_change(metric: str, difference: float) -> str:
    """A difference of two mean scores as people read it: a perplexity changes by a factor."""
    if not is_perplexity(metric):
        return f"{difference:+.4f}"
    return f"{shown(metric, difference) - 1:+.2%}"


def shown_interval(metric: str, low: float, high: float) -> str:
    """The limits of a difference of two mean scores, the smaller change of the metric first."""
    limits = (high, low) if is_perplexity(metric) else (low, high)
    return " to ".join(shown_change(metric, limit) for limit in limits)
