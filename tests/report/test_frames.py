"""Frames of trials and interventions say what the storage says."""

import math

import optuna
import pandas as pd
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from search.report.frames import TRIAL_COLUMNS, interventions_frame, trials_frame
from search.report.maps import best_by
from search.report.plots import history
from search.study.trials import TrialRecord


def _trial(number, value=None, state=TrialState.COMPLETE, steps=None, **attributes):
    trial = create_trial(
        params={"x": 1}, distributions={"x": IntDistribution(0, 2)}, value=value, state=state,
        user_attrs=attributes, intermediate_values=steps or {},
    )  # fmt: skip
    trial.number = number
    return TrialRecord.of(trial)


def test_one_row_per_trial_with_all_that_is_on_record():
    frame = trials_frame(
        [
            _trial(0, 0.5, composition="1.fc_in=0.1 2.fc_out=0.2", log_loss=1.0,
                   seconds={"forward": 2.0, "total": 3.0}, scores={"sst2": 0.25}),
            _trial(1, None, TrialState.PRUNED, {1: 0.3, 2: 0.2}, composition="1.fc_in=0.2"),
            _trial(2, None, TrialState.FAIL, composition="1.fc_in=zero", reason="out of memory"),
        ]
    )  # fmt: skip
    assert list(frame.columns[: len(TRIAL_COLUMNS)]) == list(TRIAL_COLUMNS)
    assert frame["state"].tolist() == ["complete", "pruned", "fail"]
    assert frame["interventions"].tolist() == [2, 1, 1]
    assert frame.loc[0, "seconds.forward"] == 2.0 and frame.loc[0, "scores.sst2"] == 0.25
    assert math.isnan(frame.loc[1, "score"]) and frame.loc[1, "partial"] == 0.2
    assert frame.loc[2, "reason"] == "out of memory"
    assert frame["feasible"].tolist() == [True] * 3


def test_no_trials_give_typed_empty_frames():
    frame = trials_frame([])
    assert frame["score"].dtype == "float64" and len(frame) == 0
    assert interventions_frame([]).empty


def test_one_row_per_cut_of_each_whole_evaluation():
    cuts = interventions_frame(
        [
            _trial(0, 0.5, composition="decoder.1.cross.q_proj=0.1 encoder.2.fc_out=rank:3"),
            _trial(1, 0.7, composition="encoder.2.fc_out=rank:3"),
            _trial(2, None, TrialState.PRUNED, {1: 0.99}, composition="encoder.2.fc_out=0.5"),
        ]
    )
    assert cuts["matrix"].tolist() == [
        "decoder.1.cross.q_proj", "encoder.2.fc_out", "encoder.2.fc_out",
    ]  # fmt: skip
    assert cuts["row"].tolist() == ["decoder.1", "encoder.2", "encoder.2"]
    assert cuts["column"].tolist() == ["cross.q_proj", "fc_out", "fc_out"]
    assert cuts["setting"].tolist() == ["0.1", "rank:3", "rank:3"]
    assert cuts["interventions"].tolist() == [2, 2, 1]
    assert math.isnan(cuts["rho"][1]) and cuts["rho"][0] == 0.1


def test_the_map_holds_the_best_score_of_each_matrix_in_order():
    cuts = pd.DataFrame(
        {
            "row": ["10", "2", "2", "10"], "column": ["fc_out", "q_proj", "q_proj", "q_proj"],
            "score": [0.1, 0.2, 0.4, 0.3],
        }
    )  # fmt: skip
    table = best_by(cuts, "row", "column")
    assert list(table.index) == ["2", "10"] and list(table.columns) == ["q_proj", "fc_out"]
    assert table.loc["2", "q_proj"] == 0.4 and table.loc["10", "q_proj"] == 0.3
    assert math.isnan(table.loc["2", "fc_out"])


def test_a_real_study(study):
    frame = trials_frame(study.trials)
    assert (frame["state"] == "complete").sum() == study.summary.complete
    assert frame["score"].max() == pytest.approx(study.summary.best.score)
    cuts = interventions_frame(study.trials)
    complete = frame[frame["state"] == "complete"]
    assert len(cuts) == complete["interventions"].sum()


def test_a_trial_that_breaks_a_floor_is_on_no_map_and_never_best(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = optuna.create_study(direction="maximize")
    for value, violation in ((0.4, -0.1), (0.9, 0.2)):
        trial = own.ask()
        trial.set_user_attr("composition", "1.fc_in=0.1")
        trial.set_constraint("floor", violation)
        own.tell(trial, value)
    trials = [TrialRecord.of(trial) for trial in own.trials]
    frame = trials_frame(trials)
    assert frame["feasible"].tolist() == [True, False]
    assert interventions_frame(trials)["score"].tolist() == [0.4]
    axes = history(frame, 0.3).axes[0]
    best = next(line for line in axes.get_lines() if line.get_label() == "best so far")
    assert best.get_ydata().tolist() == [0.4]
