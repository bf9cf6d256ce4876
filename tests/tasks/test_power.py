"""The gain that could be found, against the test itself and against simulated studies."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.comparison import compare
from tasks.power import _needed, detectable, detectable_text, few_text, groups_for, power


def test_as_many_mended_answers_are_needed_as_the_exact_test_wants():
    for changed in range(1, 60):
        wanted = [m for m in range(changed + 1) if 2 * m > changed]
        found = [m for m in wanted if binomtest(m, changed).pvalue < 0.05]
        needed = int(_needed(np.array([changed]))[0])
        assert needed == (found[0] if found else changed + 1), changed


@pytest.mark.parametrize("groups", [60, 300])
def test_simulated_studies_find_it_in_80_of_100_cases(outcomes, groups):
    gain = detectable(groups)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        changes = rng.random(groups) < 2 * gain
        better = rng.random(groups) < 0.75
        before = np.where(changes, ~better, True).astype(float)
        after = np.where(changes, better, True).astype(float)
        found += compare(outcomes(before), outcomes(after), resamples=500).direction == 1
    assert found / 300 == pytest.approx(0.8, abs=0.08)


def test_more_questions_find_less():
    gains = [detectable(n) for n in (20, 50, 100, 400, 2000, 13000)]
    assert gains == sorted(gains, reverse=True)
    assert power(400, detectable(400)) >= 0.8 > power(400, detectable(400) - 0.002)
    assert detectable(5) is None


def test_it_is_said_in_words():
    assert "too few to find any gain" in detectable_text(5)
    assert detectable_text(400).startswith(
        "400 groups of test questions are enough to find a gain of 0.0"
    )
    assert "a gain of 0.05 takes 3" in detectable_text(5), "and what to do about it"
    few = groups_for(0.05)
    assert power(few, 0.05) >= 0.8 > power(few - 20, 0.05)
    assert few_text(100) == ""
    assert few_text(40).startswith("validation has 40 questions")
