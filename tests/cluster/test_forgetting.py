"""What Tune keeps of an ended trial must not grow with the questions it was asked."""

from __future__ import annotations

import pickle

from ray.tune.experiment import Trial

from cluster.tune_search import Forgetting


def test_an_ended_trial_holds_neither_outcomes_nor_statistics() -> None:
    trial = Trial("sleeper", stub=True)
    trial.update_last_result({"score": 0.5, "done": True, "outcomes": bytes(1_000_000)})
    assert trial.last_result["outcomes"]
    assert trial.metric_analysis
    Forgetting().on_trial_complete(0, [trial], trial)
    assert "outcomes" not in trial.last_result
    assert trial.last_result["done"] is True
    held = (trial.last_result, trial.metric_analysis, trial.metric_n_steps)
    assert len(pickle.dumps(held)) < 200
