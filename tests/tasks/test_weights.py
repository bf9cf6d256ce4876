"""Weighted outcomes: examples that count by their tokens, as in a perplexity."""

import math

import numpy as np
import pytest

from tasks.base import Outcome
from tasks.comparison import compare
from tasks.metrics import shown, shown_change, shown_interval
from tasks.scoring import mean, summarise


def _outcomes(values, weights, **more):
    return [
        Outcome(f"e{n}", f"g{n}", value, value, None, weight=weight, **more)
        for n, (value, weight) in enumerate(zip(values, weights, strict=True))
    ]


def test_a_mean_per_token_is_that_of_all_tokens_together(example):
    nats, tokens = [30.0, 2.0, 8.0], [10, 4, 2]
    found = _outcomes([-n / t for n, t in zip(nats, tokens, strict=True)], tokens)
    scores = summarise(found, [example(n) for n in range(3)])
    assert scores.score == pytest.approx(-40 / 16)
    assert scores.log_loss == pytest.approx(40 / 16)
    assert shown("perplexity", scores.score) == pytest.approx(math.exp(40 / 16))


def test_nothing_said_is_no_takeover_and_has_no_majority(example):
    scores = summarise(_outcomes([-1.5, -2.5], [1, 3]), [example(0), example(1)])
    assert (scores.top_prediction, scores.top_share, scores.degenerate) == (None, 0.0, False)
    assert scores.majority_baseline is None


def test_measures_are_weighted_means_of_those_who_have_them(example):
    found = [
        Outcome("e0", "g", 1.0, -1.0, "x", weight=1.0, measures={"f1": 0.0, "loss": 4.0}),
        Outcome("e1", "g", 1.0, -1.0, "x", weight=3.0, measures={"f1": 1.0}),
    ]
    scores = summarise(found, [example(0), example(1)])
    assert scores.measures == {"f1": 0.75, "loss": 4.0}


def test_the_mean_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=200).tolist(), rng.integers(1, 99, size=200).tolist()
    expected = mean(values, weights)
    assert expected == pytest.approx(np.average(values, weights=weights))
    for _ in range(5):
        order = rng.permutation(200)
        assert mean([values[k] for k in order], [weights[k] for k in order]) == expected


def test_a_comparison_weighs_examples_by_their_tokens():
    rng = np.random.default_rng(1)
    weights = rng.integers(1, 200, size=60).tolist()
    before = rng.normal(-3, 0.5, size=60)
    after = before + rng.normal(0.1, 0.2, size=60)
    found = compare(
        _outcomes(before.tolist(), weights), _outcomes(after.tolist(), weights), resamples=4000
    )
    assert found.baseline == pytest.approx(np.average(before, weights=weights))
    assert found.difference == pytest.approx(np.average(after - before, weights=weights))
    # The interval against a bootstrap written out: whole examples are drawn, each with its weight.
    drawn = rng.integers(0, 60, size=(4000, 60))
    w = np.array(weights)
    ratios = ((after - before) * w)[drawn].sum(1) / w[drawn].sum(1)
    assert [found.low, found.high] == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=0.006)
    with pytest.raises(ValueError, match="weigh"):
        compare(_outcomes([1.0, 0.0], [1, 2]), _outcomes([1.0, 0.0], [1, 1]))


def test_scores_of_zero_and_one_with_weights_are_no_mcnemar():
    weights = [5.0, 1.0, 1.0]
    found = compare(_outcomes([0, 1, 0], weights), _outcomes([1, 0, 0], weights))
    assert found.test != "exact McNemar"
    assert found.difference == pytest.approx(4 / 7)


def test_a_lower_perplexity_is_a_higher_score():
    better, worse = math.log(10), math.log(20)
    assert shown("perplexity", -better) == pytest.approx(10)
    assert shown("perplexity", -worse) == pytest.approx(20)
    assert shown_change("perplexity", worse - better) == "-50.00%"
    assert shown_interval("perplexity", -0.01, worse - better) == "-50.00% to +1.01%"
    assert shown_interval("accuracy", -0.01, 0.5) == "-0.0100 to +0.5000"
    assert shown("perplexity", -1e6) == math.inf
    assert shown("accuracy", 0.25) == 0.25
