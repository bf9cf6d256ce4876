import math
import random

import numpy as np
import pytest

from tasks.base import Outcome
from tasks.calibration import calibration_error, further_scores
from tasks.scoring import summarise


def _sure(pairs):
    return [
        Outcome(f"e{n}", f"g{n}", float(right), -1.0, "x", confidence=confidence)
        for n, (confidence, right) in enumerate(pairs)
    ]


def test_confidence_that_is_right_has_no_error():
    assert calibration_error(_sure([(0.75, r) for r in (1, 1, 1, 0)])) == pytest.approx(0)
    assert calibration_error(_sure([(0.75, 0)] * 4)) == pytest.approx(0.75)


def test_gaps_are_averaged_with_the_sizes_of_their_bins():
    """Three at 0.95, all right, and one at 0.55, wrong; the gaps do not cancel."""
    found = calibration_error(_sure([(0.95, 1)] * 3 + [(0.55, 0)]))
    assert found == pytest.approx((3 * 0.05 + 0.55) / 4)


def test_against_numpy_on_random_predictions():
    rng = random.Random(0)
    pairs = [(rng.random(), rng.random() < 0.6) for _ in range(500)] + [(0.3, 1), (1.0, 0)]
    confidence, right = np.array(pairs).T
    place = np.digitize(confidence, np.linspace(0, 1, 11), right=True)
    expected = sum(
        abs(right[place == k].mean() - confidence[place == k].mean()) * (place == k).mean()
        for k in set(place.tolist())
    )
    assert calibration_error(_sure(pairs)) == pytest.approx(expected, rel=1e-12)


def test_open_answers_have_ranks_and_choices_have_none(example):
    opened = [
        Outcome("e0", "g", 1.0, -2.0, "x", rank=0, tokens=1),
        Outcome("e1", "g", 0.0, -8.0, "x", rank=4, tokens=2),
        Outcome("e2", "g", 0.0, -3.0, "x", rank=9, tokens=1),
        Outcome("e3", "g", 0.0, -9.0, "x", rank=10, tokens=1),
    ]
    found = further_scores(opened)
    assert (found["top-5"], found["top-10"]) == (0.5, 0.75)
    assert found["log-prob/token"] == pytest.approx(-(2 + 4 + 3 + 9) / 4)
    assert "ece" not in found
    assert summarise(opened, [example(n) for n in range(4)]).further == found
    chosen = [Outcome("e0", "g", 1.0, math.log(0.6), "x", tokens=1, confidence=0.6, brier=0.32)]
    assert further_scores(chosen) == pytest.approx({"brier": 0.32, "ece": 0.4})
    assert further_scores([Outcome("e0", "g", 0.5, -1.0, "x")]) == {}
