"""What people are to know of a study's record: trials that are not used, files that are damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from search.study.agreement import DISPUTED
from search.study.outcomes import FOLDER, outcome_file, read_outcomes

MOST_NUMBERS = 20
"""Trials that a sentence names."""


def disputed_numbers(trials: Sequence[FrozenTrial]) -> list[int]:
    """The trials that count as failed because their outcome files contradict them."""
    return [trial.number for trial in trials if trial.user_attrs.get("failure") == DISPUTED]


def disputed_notice(trials: Sequence[FrozenTrial]) -> list[str]:
    """A sentence that names them; empty if there are none."""
    numbers = disputed_numbers(trials)
    if not numbers:
        return []
    named = ", ".join(map(str, numbers[:MOST_NUMBERS]))
    more = f" and {len(numbers) - MOST_NUMBERS} more" if len(numbers) > MOST_NUMBERS else ""
    one = len(numbers) == 1
    return [
        f"{'trial' if one else 'trials'} {named}{more} cannot be used: the study's record and "
        f"{'its file' if one else 'their files'} in {FOLDER} say different things; restore the "
        "storage, or launch a new study"
    ]


def damaged_notice(folder: Path, study_id: str, needed: Mapping[str, str]) -> list[str]:
    """A sentence for each evaluation that a verdict rests on and whose file is damaged.

    `needed`: their names, each with its effect, empty for the baseline. No path of this machine
    is told, for a report may be published.
    """
    return [
        f"{FOLDER}/{name}.parquet, which holds answers of the {'winner' if effect else 'baseline'},"
        " is damaged and is not read; laser-search resume evaluates them again"
        for name, effect in needed.items()
        if outcome_file(folder, name).exists()
        and read_outcomes(folder, name, study_id, effect, rows=False) is None
    ]
