"""Is the winner better than the baseline on the same examples? Paired, by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.base import Outcome

RESAMPLES = 10_000
LEVEL = 0.05
"""The p-value below which a change counts as clear."""

PARTS = (1, 2, 3, 4, 6, 12, 60, 420, 840, 2520)
"""Fractions of a hit that differences may be whole numbers of: up to ten answers tie."""
STEPS = 100_000
"""Steps in all up to which the distribution of a sum is computed and not drawn."""

CELLS = 4_000_000
"""Random numbers drawn at once: 32 MB of int64."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of two sets of outcomes.

    `n`, `groups`: examples and groups. `baseline`, `winner`: weighted mean scores. `difference`:
    winner minus baseline, with the 95 % interval from `low` to `high`. `p_value`: two-sided, by the
    test named in `test`. `fixed`, `broken`: examples whose score rose and fell.
    """

    n: int
    groups: int
    baseline: float
    winner: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    fixed: int
    broken: int

    @property
    def direction(self) -> int:
        """1 for a clear rise of the score, -1 for a clear fall, else 0.

        Clear: the interval lies on one side of zero and the test agrees. The interval alone would
        make a gain of four questions fixed and none broken, for which the exact test gives 0.125.
        """
        if self.p_value >= LEVEL:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def compare(
    baseline: Sequence[Outcome],
    winner: Sequence[Outcome],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models on the same examples, matched by id in any order.

    Interval: percentile bootstrap (Efron 1979) over groups. Groups are drawn with replacement, as
    many as there are; a resample's value is the weighted sum of its score differences over its
    weight; the limits are its percentiles over `resamples`, linearly interpolated: 2.5 and 97.5 of
    many groups, further out for few, since a resample of n groups varies by (n - 1)/n of what it
    should and t has wider tails than the normal law (Hesterberg 2015, expanded percentiles).
    Test: exact McNemar when every group is one example of weight 1 scored 0 or 1; else groups
    change sign together under the null hypothesis, and the distribution of the summed difference is
    exact for differences that are whole numbers of some fraction (ties earn 1/k) and otherwise
    drawn `resamples` times.
    Depends on the outcomes and the seed alone. Raises ValueError when the examples or their weights
    differ.
    """
    before = {outcome.example_id: outcome for outcome in baseline}
    after = {outcome.example_id: outcome for outcome in winner}
    if not before or before.keys() != after.keys():
        raise ValueError("baseline and winner must answer the same examples, at least one")
    ids = sorted(before)
    names, group = np.unique([before[i].group for i in ids], return_inverse=True)
    old = np.array([before[i].score for i in ids])
    new = np.array([after[i].score for i in ids])
    weights = np.array([before[i].weight for i in ids])
    if not np.array_equal(weights, [after[i].weight for i in ids]):
        raise ValueError("baseline and winner must weigh the examples alike")
    change = new - old
    sums = np.bincount(group, weights=change * weights).astype(np.float64)
    sizes = np.bincount(group, weights=weights).astype(np.float64)
    rng = np.random.default_rng(seed)
    low, high = _interval(sums, sizes, rng, resamples)
    binary = bool(np.isin(np.concatenate([old, new, weights]), (0.0, 1.0)).all())
    p_value, test = _test(sums, binary and len(names) == len(ids), rng, resamples)
    return Comparison(
        n=len(ids),
        groups=len(names),
        baseline=float(np.average(old, weights=weights)),
        winner=float(np.average(new, weights=weights)),
        difference=float(np.average(change, weights=weights)),
        low=low,
        high=high,
        p_value=p_value,
        test=test,
        fixed=int((change > 0).sum()),
        broken=int((change < 0).sum()),
    )


def _interval(
    sums: NDArray[np.float64],
    sizes: NDArray[np.float64],
    rng: np.random.Generator,
    resamples: int,
) -> tuple[float, float]:
    """Percentile interval of the ratio of sums over resampled groups.

    Groups with one sum and size are interchangeable, so how often each kind is drawn is
    multinomial; 0/1 scores have a handful of kinds however many groups there are. Where almost
    every group is a kind of its own, drawing the groups themselves is several times faster.
    """
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    few = len(counts) * 6 < len(sums)
    chunk = max(1, CELLS // (len(counts) if few else len(sums)))
    values = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        if few:
            drawn = rng.multinomial(len(sums), counts / counts.sum(), size=draws)
            values.append((drawn @ kinds[0]) / (drawn @ kinds[1]))
        else:
            picked = rng.integers(0, len(sums), size=(draws, len(sums)), dtype=np.int32)
            values.append(sums[picked].sum(1) / sizes[picked].sum(1))
    tail = _tail(len(sums))
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return float(low), float(high)


def _tail(groups: int) -> float:
    """Share of the resamples beyond each limit: 2.5 % of many groups, less of few."""
    if groups < 2:
        return 0.0
    from scipy.stats import norm, t  # here, for it takes most of a second of every command

    reach = t.ppf(1 - LEVEL / 2, groups - 1) * np.sqrt(groups / (groups - 1))
    return float(norm.sf(reach))


def _test(
    sums: NDArray[np.float64], mcnemar: bool, rng: np.random.Generator, resamples: int
) -> tuple[float, str]:
    """Two-sided p-value and the name of the test; 1 where nothing changed."""
    moved = np.abs(sums[sums != 0])
    if mcnemar:
        from scipy.stats import binomtest

        rose, fell = int((sums > 0).sum()), int((sums < 0).sum())
        p_value = binomtest(rose, rose + fell).pvalue if len(moved) else 1.0
        return float(p_value), "exact McNemar"
    for parts in PARTS:
        steps = np.round(moved * parts)
        if np.allclose(moved * parts, steps, rtol=0, atol=1e-6) and steps.sum() <= STEPS:
            observed = abs(float(np.round(sums * parts).sum()))
            return _exact_flips(steps, observed), "exact sign-flip over groups"
    return (
        _drawn_flips(moved, abs(float(sums.sum())), rng, resamples),
        f"sign-flip over groups, {resamples} draws",
    )


def _exact_flips(moved: NDArray[np.float64], observed: float) -> float:
    """P(|sum of +-moved| >= observed) for whole numbers, by convolving binomials.

    m groups of size v add v * (2 * Binomial(m, 1/2) - m); in steps of two the sum starts at 0.
    """
    from scipy.stats import binom

    mass = np.ones(1)
    for size, count in sorted(Counter(moved.astype(int).tolist()).items()):
        part = np.zeros(size * count + 1)
        part[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        mass = np.convolve(mass, part)
    total = moved.sum()
    values = 2 * np.arange(len(mass)) - total
    return float(min(1.0, mass[np.abs(values) >= observed].sum()))


def _drawn_flips(
    moved: NDArray[np.float64], observed: float, rng: np.random.Generator, resamples: int
) -> float:
    """Monte Carlo p-value; the observed sum counts as one draw, so it is never zero."""
    if not len(moved):
        return 1.0
    chunk = max(1, CELLS // len(moved))
    # Equal sums must count as extreme although they are added up in another order.
    threshold = observed - 1e-9 * moved.sum()
    extreme = 0
    for start in range(0, resamples, chunk):
        shape = (min(chunk, resamples - start), len(moved))
        signs = rng.integers(0, 2, size=shape, dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= threshold).sum())
    return (1 + extreme) / (1 + resamples)
