"""How much a log-probability may be off is measured where a fixed bound is too small."""

from __future__ import annotations

import pytest

from search.export.verify import ROUNDINGS, compare_outcomes, measured_tolerance
from tasks.base import Outcome


def answers(*log_probabilities: float) -> list[Outcome]:
    return [
        Outcome(str(number), str(number), 1.0, value, "yes")
        for number, value in enumerate(log_probabilities)
    ]


def test_a_model_that_amplifies_rounding_may_be_off_by_a_multiple_of_it() -> None:
    found, alone = answers(-1.0, -40.0), answers(-1.0003, -40.04)
    tolerance = measured_tolerance(found, alone, 1e-4)
    assert tolerance == pytest.approx(ROUNDINGS * 0.001), "relative to the size, beyond 1 nat"
    assert compare_outcomes(answers(-1.005, -40.2), found, tolerance)[0] == 0
    assert compare_outcomes(answers(-1.05, -40.0), found, tolerance)[0] == 1, "another model"


def test_it_is_never_below_the_fixed_bound() -> None:
    found = answers(-1.0, -2.0)
    assert measured_tolerance(found, found, 1e-4) == 1e-4
