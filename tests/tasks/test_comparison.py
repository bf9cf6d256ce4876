"""Against values computed another way: sums of binomials, scipy's own permutation test, loops."""

import itertools
import math
import random

import numpy as np
import pytest
import scipy.stats

from tasks.comparison import _drawn_flips, _exact_flips, _tail, compare


def _random_scores(seed, n, rate):
    rng = random.Random(seed)
    return [int(rng.random() < rate) for _ in range(n)]


def test_mcnemar_is_the_exact_binomial(outcomes):
    """Nine fixed, two broken: two tails of Binomial(11, 1/2)."""
    old = [0] * 9 + [1] * 2 + [1] * 20 + [0] * 5
    new = [1] * 9 + [0] * 2 + [1] * 20 + [0] * 5
    result = compare(outcomes(old), outcomes(new))
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert result.test == "exact McNemar"
    assert result.p_value == pytest.approx(2 * tail, rel=1e-12)
    assert (result.fixed, result.broken, result.n, result.groups) == (9, 2, 36, 36)
    assert result.difference == pytest.approx(7 / 36)
    assert result.baseline == pytest.approx(22 / 36)
    assert result.winner == pytest.approx(29 / 36)


def test_nothing_changed(outcomes):
    result = compare(outcomes([1, 0, 1]), outcomes([1, 0, 1]))
    assert (result.p_value, result.low, result.high, result.difference) == (1, 0, 0, 0)


def _group_sums(old, new, groups):
    sums = {}
    for before, after, group in zip(old, new, groups, strict=True):
        sums[group] = sums.get(group, 0) + after - before
    return list(sums.values())


def test_grouped_test_is_the_permutation_test_of_scipy(outcomes):
    """scipy flips the signs of paired samples too; with 12 groups it enumerates all."""
    groups = [f"g{n % 12}" for n in range(40)]
    old, new = _random_scores(1, 40, 0.3), _random_scores(2, 40, 0.6)
    sums = _group_sums(old, new, groups)
    reference = scipy.stats.permutation_test(
        (np.array(sums, float), np.zeros(len(sums))),
        lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    result = compare(outcomes(old, groups), outcomes(new, groups))
    assert result.test == "exact sign-flip over groups"
    assert result.groups == 12
    assert result.p_value == pytest.approx(reference.pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_exact_flips_enumerate_all_signs(seed):
    sizes = [random.Random(seed + n).randint(1, 4) for n in range(9)]
    observed = random.Random(seed).randrange(sum(sizes) % 2, sum(sizes) + 1, 2)
    signs = itertools.product((-1, 1), repeat=len(sizes))
    totals = [abs(sum(s * v for s, v in zip(sign, sizes, strict=True))) for sign in signs]
    share = sum(total >= observed for total in totals) / len(totals)
    assert _exact_flips(np.array(sizes, float), observed) == pytest.approx(share, rel=1e-9)


def test_drawn_flips_agree_with_the_exact_ones():
    sizes = np.array([1.0, 2, 1, 3, 1, 1, 2, 1, 1, 1])
    exact = _exact_flips(sizes, 8.0)
    drawn = _drawn_flips(sizes, 8.0, np.random.default_rng(0), 20_000)
    assert 0.05 < exact < 0.5
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000)


def test_scores_that_are_no_zero_or_one_are_drawn(outcomes):
    old = [0.1 * n for n in range(12)]
    new = [score + 0.3 + 0.01 * n for n, score in enumerate(old)]
    result = compare(outcomes(old), outcomes(new))
    assert result.test == "sign-flip over groups, 10000 draws"
    # All twelve rose: 2 of 4096 sign patterns are as extreme.
    assert result.p_value == pytest.approx(2 / 4096, abs=4e-4)
    assert result.p_value > 0


def test_interval_is_the_percentile_bootstrap_over_groups(outcomes):
    """A plain loop that draws groups by index, with its own random numbers."""
    rng = random.Random(3)
    groups = [f"g{rng.randrange(60)}" for _ in range(200)]
    old, new = _random_scores(4, 200, 0.4), _random_scores(5, 200, 0.55)
    members = {}
    for group, before, after in zip(groups, old, new, strict=True):
        members.setdefault(group, []).append(after - before)
    pool = list(members.values())
    means = []
    for _ in range(10_000):
        drawn = [value for part in rng.choices(pool, k=len(pool)) for value in part]
        means.append(sum(drawn) / len(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    result = compare(outcomes(old, groups), outcomes(new, groups))
    assert result.low == pytest.approx(low, abs=0.006)
    assert result.high == pytest.approx(high, abs=0.006)


def test_groups_widen_the_interval(outcomes):
    """Copies of one example are no further evidence."""
    old, new = _random_scores(6, 50, 0.4) * 8, _random_scores(7, 50, 0.5) * 8
    apart = compare(outcomes(old), outcomes(new))
    whole = [f"g{n % 50}" for n in range(400)]
    together = compare(outcomes(old, whole), outcomes(new, whole))
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.1)
    assert together.p_value > apart.p_value


def test_the_order_does_not_matter_and_the_seed_does(outcomes):
    rng = random.Random(8)
    old, new = (outcomes([rng.random() for _ in range(60)]) for _ in range(2))
    result = compare(old, new, seed=1)
    assert compare(old[::-1], new[5:] + new[:5], seed=1) == result
    assert compare(old, new, seed=2).low != result.low


def test_drawing_in_chunks_changes_the_draws_only(outcomes, monkeypatch):
    rng = random.Random(8)
    old, new = (outcomes([rng.random() for _ in range(60)]) for _ in range(2))
    whole = compare(old, new)
    monkeypatch.setattr("tasks.comparison.CELLS", 60 * 700)
    pieces = compare(old, new)
    assert pieces.low == pytest.approx(whole.low, abs=0.01)
    assert pieces.p_value == pytest.approx(whole.p_value, abs=0.03)


def test_different_examples_are_refused(outcomes):
    with pytest.raises(ValueError, match="same examples"):
        compare(outcomes([1, 0]), outcomes([1]))


@pytest.mark.parametrize(("fixed", "broken", "said"), [(4, 0, 0), (6, 0, 1), (0, 6, -1), (9, 6, 0)])
def test_a_change_is_clear_where_interval_and_test_agree(fixed, broken, said, outcomes):
    new = np.array([1] * fixed + [0] * (400 - fixed))
    old = np.array([0] * fixed + [1] * broken + [0] * (400 - fixed - broken))
    found = compare(outcomes(old), outcomes(new))
    assert found.direction == said
    if (fixed, broken) == (4, 0):
        assert found.low > 0  # the interval alone would call it clear


def test_shares_of_a_hit_have_an_exact_test(outcomes):
    """Halves and thirds: every sign of every difference is counted, as by hand."""
    after = [1.0, 0.5, 1 / 3, 0.5, 1.0, 0.25, 0.0]
    before = [0.5, 0.0, 1.0, 0.0, 1 / 3, 0.0, 0.0]
    found = compare(outcomes(before), outcomes(after))
    change = np.array(after) - np.array(before)
    moved = np.abs(change[change != 0])
    sums = [abs(sum(signs * moved)) for signs in itertools.product([-1, 1], repeat=len(moved))]
    expected = np.mean([s >= abs(change.sum()) - 1e-9 for s in sums])
    assert found.test == "exact sign-flip over groups"
    assert found.p_value == pytest.approx(expected)


def test_few_groups_have_wider_limits(outcomes):
    """Ten groups: t with 9 degrees of freedom, times the root of 10/9, as of the normal law."""
    reach = scipy.stats.t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert _tail(10) == pytest.approx(scipy.stats.norm.cdf(-reach))
    assert _tail(100_000) == pytest.approx(0.025, abs=1e-5)
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        after = outcomes(rng.normal(0.5, 1.0, 12).tolist())
        found = compare(outcomes([0.0] * 12), after, resamples=1000)
        held += found.low <= 0.5 <= found.high
    assert held / 200 == pytest.approx(0.95, abs=0.035)
