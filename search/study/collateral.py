"""What a winner costs on general text."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from search.study.outcomes import Evaluation
from tasks.base import Example
from tasks.comparison import compare

NOTABLE = 0.01
"""A rise of the perplexity above which a verdict warns."""


@dataclass(frozen=True)
class GeneralText:
    """Texts, what they are, and a digest of them, short enough for a file name.

    `sample`: what each trial is scored on, where a limit is to be kept; none of `examples` where
    there are enough others.
    """

    source: str
    examples: tuple[Example, ...]
    sample: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        """The first 12 hexadecimal digits of the texts' SHA-256."""
        texts = "\n".join(f"{example.id} {example.prompt}" for example in self.examples)
        return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Collateral:
    """The perplexity of baseline and winner on the same texts.

    `source`: what the texts are. `change`: the relative change of the perplexity, 0.01 is 1 % more,
    with its 95 % interval from `low` to `high`: a paired bootstrap over the texts' groups.
    `limit`: the change that the search allowed, None if it did not look.
    """

    source: str
    texts: int
    tokens: int
    baseline: float
    winner: float
    change: float
    low: float
    high: float
    limit: float | None = None

    @staticmethod
    def of(
        source: str, baseline: Evaluation, winner: Evaluation, limit: float | None = None
    ) -> Collateral:
        """Compare two evaluations of the same texts. Raises ValueError if they are not."""
        found = compare(baseline.outcomes, winner.outcomes)
        return Collateral(
            source=source,
            texts=found.n,
            tokens=sum(outcome.tokens or 0 for outcome in baseline.outcomes),
            baseline=math.exp(-found.baseline),
            winner=math.exp(-found.winner),
            change=math.expm1(-found.difference),
            low=math.expm1(-found.high),
            high=math.expm1(-found.low),
            limit=limit,
        )

    @property
    def warning(self) -> str | None:
        """What to know before the winner is used for anything else; None if it costs little."""
        if self.change <= (NOTABLE if self.limit is None else self.limit):
            return None
        if self.limit is not None:
            return (
                f"on general text the winner's perplexity is {self.change:.1%} higher, which "
                f"breaks the limit of {self.limit:+.1%} (guard.worse_by), though it kept it on the "
                "sample that the search looked at; raise guard.sample_tokens"
            )
        return (
            f"on general text the winner's perplexity is {self.change:.1%} higher, so it may "
            "answer other questions worse; guard: {worse_by: 0.01} makes the search avoid that"
        )

    def sentence(self) -> str:
        """The cost in one sentence."""
        return (
            f"general text ({self.source}, {self.tokens:,} tokens): perplexity "
            f"{self.baseline:.4g} to {self.winner:.4g}, {self.change:+.1%} "
            f"(95 % interval {self.low:+.1%} to {self.high:+.1%}){self._kept}"
        )

    @property
    def _kept(self) -> str:
        if self.limit is None or self.warning is not None:
            return ""
        return f", within the limit of {self.limit:+.1%}"
