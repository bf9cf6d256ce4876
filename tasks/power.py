"""Which gain a paired test of so many questions could find at all, before a question is asked.

A question of a paired comparison says something only if its answer changes. How many will is not
known beforehand, so it is assumed: `MENDED` of the answers that change are mended and the rest are
broken, so a gain of d changes d / (2 MENDED - 1) of all answers; where that would be more than all,
all change and more of them are mended. Groups are what is independent, so
they are counted and not questions: a group changes as one.
"""

from __future__ import annotations

import numpy as np

from tasks.comparison import LEVEL

HITS = ("accuracy", "acc", "acc_norm", "exact_match")
"""Metrics whose scores are hits and misses, for which the paired test is McNemar's."""
POWER = 0.8
"""Share of cases in which a gain is to be found."""
MENDED = 0.75
"""Assumed share of the changed answers that change for the better: three mended for one broken."""
WORTH = 0.05
"""The gain (0 to 1) by which people are told how many questions they need."""
FEW = 100
"""Validation questions below which the best of many trials says little about the next question."""


def power(groups: int, gain: float) -> float:
    """How likely the exact paired test finds a true gain of `gain` (0 to 1) with `groups` groups.

    Exact: the number of changed groups is Binomial(groups, gain / (2 MENDED - 1)), the mended ones
    among them Binomial(changed, MENDED or what the gain needs), and McNemar's exact test,
    two-sided at 0.05, is to be significant with more mended than broken (the unconditional power,
    Duffy 1984).
    """
    from scipy.stats import binom  # here, for it takes most of a second of every command

    changing = min(1.0, gain / (2 * MENDED - 1))
    mended = (1 + gain / changing) / 2 if changing else 0.5
    low, high = (int(binom.ppf(q, groups, changing)) for q in (1e-6, 1 - 1e-6))
    changed = np.arange(max(1, low), max(1, high) + 1)
    found = binom.sf(_needed(changed) - 1, changed, mended)
    return float((binom.pmf(changed, groups, changing) * found).sum())


def detectable(groups: int) -> float | None:
    """The smallest gain (0 to 1) found in 80 of 100 cases, to 0.0005; None where there is none."""
    low, high = 0.0, 1.0
    if groups < 1 or power(groups, high) < POWER:
        return None
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(groups, middle) >= POWER else (middle, high)
    return high


def groups_for(gain: float) -> int:
    """The fewest groups, to 10, that find a true gain (0 to 1) in 80 of 100 cases."""
    low, high = 0, 10
    while power(high, gain) < POWER:
        low, high = high, 2 * high
    while high - low > 10:
        middle = (low + high) // 20 * 10
        low, high = (low, middle) if power(middle, gain) >= POWER else (middle, high)
    return high


def detectable_text(groups: int) -> str:
    """The same as a sentence for people."""
    gain = detectable(groups)
    among = f"{groups:,} group{'s' if groups != 1 else ''} of test questions"
    if gain is None:
        return (
            f"{among} are too few to find any gain in 80 of 100 cases; a gain of {WORTH:g} takes "
            f"{groups_for(WORTH):,} groups: add questions, or lower split.validation"
        )
    return (
        f"{among} are enough to find a gain of {gain:.4f} or more in 80 of 100 cases (exact paired "
        "test, three answers fixed for each one broken)"
    )


def few_text(questions: int) -> str:
    """A warning where validation is small, else empty."""
    if questions >= FEW:
        return ""
    return (
        f"validation has {questions} question{'s' if questions != 1 else ''}; below {FEW} the best "
        "of many trials is mostly the luckiest: add questions, or raise split.validation"
    )


def _needed(changed: np.ndarray) -> np.ndarray:
    """The fewest mended answers of so many changed ones that are significant; more than all: none.

    The null is symmetric: twice the upper tail of Binomial(changed, 1/2) is to be below `LEVEL`.
    """
    from scipy.stats import binom

    needed: np.ndarray = binom.isf(LEVEL / 2, changed, 0.5).astype(int) + 1
    edge = 2 * binom.sf(needed - 1, changed, 0.5) >= LEVEL  # the very edge, by rounding
    return np.where(edge, needed + 1, needed)
