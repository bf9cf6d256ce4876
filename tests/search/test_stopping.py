"""A search ends by its own rules, and a resumed one by the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.sections import StopConfig
from search.strategies.base import Tried
from search.study.stopping import Stopping


def trial(value: float | None, *, missed: float = 0.0):
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    values = () if value is None else (value,)
    return Tried(0, Composition(), "", state, values, violations={"floor": missed})


def reason(rules: StopConfig, values, baseline=0.5, elapsed_s=0.0, metric="accuracy"):
    trials = [value if hasattr(value, "state") else trial(value) for value in values]
    return Stopping(rules, metric).reason(trials, trial(baseline), elapsed_s)


def test_without_rules_nothing_ends() -> None:
    assert reason(StopConfig(), [0.9] * 50, elapsed_s=1e9) is None


def test_time_is_up() -> None:
    rules = StopConfig(wall_s=60)
    assert reason(rules, [], elapsed_s=59.9) is None
    assert "wall_s is 60" in reason(rules, [], elapsed_s=60)


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 8))
def test_patience_counts_finished_trials_since_the_best(values: list[float], patience: int) -> None:
    best, since = 0.5, 0
    for value in values:
        best, since = (value, 0) if value > best else (best, since + 1)
    ended = reason(StopConfig(no_gain_trials=patience), values) is not None
    assert ended == (since >= patience)


def test_failures_count_and_infeasible_gains_are_none() -> None:
    rules = StopConfig(no_gain_trials=3)
    assert reason(rules, [0.6, None, None]) is None
    assert "none of the last 3" in reason(rules, [0.6, None, None, None])
    assert "none of the last 3" in reason(rules, [0.4, 0.4, trial(0.9, missed=0.1)])


def test_a_target_is_in_the_metric_that_people_read() -> None:
    assert reason(StopConfig(target=0.8), [0.79]) is None
    assert "target of 0.8 is reached" in reason(StopConfig(target=0.8), [0.8])
    assert reason(StopConfig(target=0.8), [trial(0.9, missed=0.1)]) is None
    perplexity = {"metric": "perplexity", "baseline": -math.log(30)}
    assert reason(StopConfig(target=20), [-math.log(21)], **perplexity) is None
    reached = reason(StopConfig(target=20), [-math.log(19.9)], **perplexity)
    assert "target of 20 is reached" in reached


@pytest.mark.parametrize("rules", [{"wall_s": 0}, {"no_gain_trials": 0}, {"target": True}])
def test_rules_that_say_nothing_are_refused(rules) -> None:
    with pytest.raises(ValueError):
        StopConfig(**rules)
