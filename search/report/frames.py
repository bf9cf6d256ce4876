"""A study's trials as pandas frames: one row per trial, and one per intervention of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from optuna.trial import TrialState

from search.cuts.composition import Intervention
from search.study.trials import TrialRecord

TRIAL_COLUMNS = {
    "trial": "int64",
    "state": "string",
    "score": "float64",
    "partial": "float64",
    "steps": "int64",
    "log_loss": "float64",
    "soft_score": "float64",
    "composition": "string",
    "interventions": "int64",
    "feasible": "bool",
    "reason": "string",
    "started": "datetime64[us]",
    "finished": "datetime64[us]",
}
"""Columns that every frame of trials has, whatever the study, and their types."""

INTERVENTION_COLUMNS = {
    "trial": "int64",
    "matrix": "string",
    "row": "string",
    "column": "string",
    "layer": "int64",
    "setting": "string",
    "rho": "float64",
    "interventions": "int64",
    "score": "float64",
    "gain": "float64",
}


def trials_frame(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per trial, in order of number.

    `score` is that of a whole evaluation, NaN where there is none; `partial` the last score that a
    pruned trial reported, over the first `steps` chunks of the questions. `feasible`: it keeps
    every floor, as far as is known. What else a trial has on record follows, with the names of
    parts joined by a point: ``seconds.forward``.
    """
    rows = [_row(trial) for trial in trials]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*TRIAL_COLUMNS, *_names(rows)])))
    return frame.astype(TRIAL_COLUMNS)


def interventions_frame(
    trials: Sequence[TrialRecord], baseline: float | None = None
) -> pd.DataFrame:
    """One row per cut matrix of every complete evaluation; `baseline` is the unedited score.

    Duplicates are left out, and trials that break a floor, which cannot win.

    `row` and `column` are where a map of the network draws the matrix: its layer with its stack,
    and its type. `setting` is the rank rule as text, `rho` the fraction kept where that is the
    rule. `interventions` says how many matrices the trial cut in all. `gain` is the trial's score
    less that of the same composition without this cut, NaN where that was not evaluated.
    """
    known = _scores(trials, baseline)
    rows = []
    for trial in trials:
        if not trial.counts:
            continue
        cuts = trial.cuts
        rows += [
            {
                "trial": trial.number,
                "matrix": str(cut.matrix),
                "row": row_of(cut),
                "column": column_of(cut),
                "layer": cut.matrix.layer,
                "setting": setting_of(cut),
                "rho": cut.rule.value if cut.rule.name == "rho" else math.nan,
                "interventions": len(cuts),
                "score": trial.score,
                "gain": known[frozenset(cuts)] - known.get(frozenset(cuts) - {cut}, math.nan),
            }
            for cut in cuts
        ]
    return pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS)).astype(INTERVENTION_COLUMNS)


def _scores(
    trials: Sequence[TrialRecord], baseline: float | None
) -> dict[frozenset[Intervention], float]:
    """The score of every composition that was evaluated as a whole."""
    found = {frozenset[Intervention](): math.nan if baseline is None else baseline}
    for trial in trials:
        if trial.complete and trial.cuts and trial.score is not None:
            found[frozenset(trial.cuts)] = trial.score
    return found


def row_of(cut: Intervention) -> str:
    """The layer, with the name of its stack where the model has several."""
    return cut.matrix.row


def column_of(cut: Intervention) -> str:
    """The matrix type; attention across stacks is apart from self-attention."""
    return f"cross.{cut.matrix.type}" if cut.matrix.cross else cut.matrix.type


def setting_of(cut: Intervention) -> str:
    """What is kept of a matrix, as the composition's text says it: ``0.1``, ``rank:3``."""
    return str(cut).partition("=")[2]


def _row(trial: TrialRecord) -> dict[str, Any]:
    steps = trial.steps
    last = steps[max(steps)] if steps and trial.state == TrialState.PRUNED else math.nan
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "score": trial.score if trial.complete else math.nan,
        "partial": last,
        "steps": max(steps, default=0),
        "log_loss": math.nan if trial.log_loss is None else trial.log_loss,
        "soft_score": math.nan if trial.soft_score is None else trial.soft_score,
        "composition": trial.text or None,
        "interventions": len(trial.cuts),
        "feasible": trial.feasible,
        "reason": trial.reason,
        "started": trial.started,
        "finished": trial.finished,
        **_flat(trial.further),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their names joined by points; other nested values are left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, str | int | float | bool):
            found[f"{prefix}{name}"] = value
    return found


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for row in rows for name in row} - TRIAL_COLUMNS.keys())
