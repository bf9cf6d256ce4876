"""Trials against the outcome files that were written before them: whether both say the same.

A storage that lost a line, or was mended by hand, may give a trial the number of another one. Each
outcome file names its study, what was done to the model, and the score; a finished trial that says
otherwise has no result.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import TrialState

from search.study.jobs import trial_name
from search.study.outcomes import FOLDER, META, outcome_file, parse_outcomes
from search.study.trials import FAILURE, REASON, TrialRecord

DISPUTED = "disputed"
"""The kind of failure of a trial that its outcome file contradicts."""

MOST_NUMBERS = 20
"""Trials that a sentence names."""


def disputed(trials: Iterable[TrialRecord], folder: Path, study_id: str) -> dict[int, TrialRecord]:
    """The finished trials of a study in `folder` that their outcome files contradict, by number.

    They come as failed ones, with the reason. A trial whose file is gone or damaged is taken at its
    word. Reads the footers of the files alone, and a whole file where it contradicts.
    """
    found = {}
    for trial in trials:
        if trial.complete and (reason := _dispute(trial, folder, study_id)):
            failed = copy.copy(trial.frozen)
            failed.state, failed.values = TrialState.FAIL, None
            failed.user_attrs = {**failed.user_attrs, REASON: reason, FAILURE: DISPUTED}
            found[trial.number] = TrialRecord.of(failed)
    return found


def disputed_numbers(trials: Sequence[TrialRecord]) -> list[int]:
    """The trials that count as failed because their outcome files contradict them."""
    return [trial.number for trial in trials if trial.failure == DISPUTED]


def disputed_notice(trials: Sequence[TrialRecord]) -> list[str]:
    """A sentence that names them; empty if there are none."""
    numbers = disputed_numbers(trials)
    if not numbers:
        return []
    named = ", ".join(map(str, numbers[:MOST_NUMBERS]))
    more = f" and {len(numbers) - MOST_NUMBERS} more" if len(numbers) > MOST_NUMBERS else ""
    one = len(numbers) == 1
    return [
        f"{'trial' if one else 'trials'} {named}{more} cannot be used: the study's record and "
        f"{'its file' if one else 'their files'} in {FOLDER} disagree; restore the "
        "storage, or launch a new study"
    ]


def _dispute(trial: TrialRecord, folder: Path, study_id: str) -> str:
    """What a trial's outcome file says otherwise, empty if both agree or it cannot be read."""
    path = outcome_file(folder, trial_name(trial.number))
    facts = _facts(path)
    if facts is None:
        return ""
    reason = _contradiction(trial, facts, study_id)
    return reason if reason and _is_whole(path, facts) else ""


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[META])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return facts


def _is_whole(path: Path, facts: dict[str, Any]) -> bool:
    """Whether a file is what was written: a flipped bit in its footer contradicts nobody."""
    try:
        study, effect = facts["study"], facts["effect"]
        return parse_outcomes(path.read_bytes(), study, effect, rows=False) is not None
    except (OSError, KeyError):
        return False


def _contradiction(trial: TrialRecord, facts: dict[str, Any], study_id: str) -> str:
    """What the outcome file says otherwise, empty if both agree."""
    said: list[tuple[str, Any, Any]] = [
        ("study", study_id, facts.get("study")),
        ("cut", trial.effect, facts.get("effect")),
        ("score", trial.score, facts.get("score")),
        ("log-loss", trial.log_loss, facts.get("log_loss")),
    ]
    for name, recorded, on_file in said:
        if recorded != on_file:
            return f"its outcome file has another {name} than the study's record"
    return ""
