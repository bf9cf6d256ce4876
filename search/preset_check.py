"""What was found against what was published, for a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import binomtest

from search.presets import Preset
from tasks.scoring import Scores


@dataclass(frozen=True)
class PublishedRow:
    """One side, in per cent: what was `published`, what was `found`, and its 95 % interval."""

    side: str
    published: float
    found: float
    low: float
    high: float

    @property
    def agrees(self) -> bool:
        """Whether the published figure lies in the interval, to the digit that it was given to."""
        return self.low - 0.05 <= self.published <= self.high + 0.05

    def sentence(self) -> str:
        """For people."""
        verdict = "in" if self.agrees else "OUTSIDE"
        return (
            f"{self.side}: published {self.published:.2f} %, found {self.found:.2f} %; the "
            f"published figure lies {verdict} the 95 % interval of {self.low:.2f} to "
            f"{self.high:.2f} %"
        )


def check_published(preset: Preset, scores: Mapping[str, Scores]) -> list[PublishedRow]:
    """The accuracies before and after beside those of `preset`; empty where it has none.

    `scores`: the baseline first, then the composition if something was cut. Intervals are Wilson's.
    """
    rows = []
    sides = (("before", preset.before), ("after", preset.after))
    for (side, published), found in zip(sides, scores.values(), strict=False):
        if published is not None:
            rows.append(_row(side, published, found))
    return rows


def _row(side: str, published: float, found: Scores) -> PublishedRow:
    right = round(found.score * found.n)
    interval = binomtest(right, found.n).proportion_ci(method="wilson")
    return PublishedRow(
        side, published, 100 * found.score, 100 * float(interval.low), 100 * float(interval.high)
    )
