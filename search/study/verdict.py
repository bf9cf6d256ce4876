"""The end of a study: baseline and winner on data that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from search.durable import write_json
from search.study.identity import Identity
from search.study.jobs import BASELINE, TEST_BASELINE, test_name, trial_name
from search.study.outcomes import Evaluation, read_outcomes
from tasks.base import Example
from tasks.comparison import Comparison, compare
from tasks.datasets import Split
from tasks.scoring import Scores, breakdown, summarise

FILE = "result.json"
MAX_VALUES = 12
"""Columns with more distinct values than this are no categories and are not broken down."""


@dataclass(frozen=True)
class Verdict:
    """Scores of baseline and winner by part, their comparison by part, the test by column.

    `truncated`: by part, how many answers had their prompt cut to the model's length.
    """

    trial: int | None
    composition: str
    scores: dict[str, dict[str, Scores]]
    comparisons: dict[str, Comparison]
    columns: dict[str, dict[str, dict[str, float]]]
    truncated: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for result.json."""
        return asdict(self)


def conclude(
    folder: Path, identity: Identity, winner: FrozenTrial | None, split: Split
) -> Verdict | None:
    """Compare and durably write result.json; None while test is not scored."""

    def read(name: str, effect: str) -> Evaluation | None:
        return read_outcomes(folder, name, identity.study_id, effect)

    sides = {"baseline": {"validation": read(BASELINE, ""), "test": read(TEST_BASELINE, "")}}
    if winner is not None:
        effect = winner.user_attrs["effect"]
        sides["winner"] = {
            "validation": read(trial_name(winner.number), effect),
            "test": read(test_name(winner.number), effect),
        }
    known = {
        side: {part: evaluation for part, evaluation in found.items() if evaluation is not None}
        for side, found in sides.items()
    }
    if any(len(found) < 2 for found in known.values()):
        return None
    verdict = _verdict(winner, known, {"validation": split.validation, "test": split.test})
    write_json(folder / FILE, verdict.to_json())
    return verdict


def read_result(folder: Path) -> dict[str, Any] | None:
    """The verdict of a finished study as plain data, None while there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _verdict(
    winner: FrozenTrial | None,
    sides: dict[str, dict[str, Evaluation]],
    parts: dict[str, list[Example]],
) -> Verdict:
    scores = {
        side: {part: summarise(found[part].outcomes, parts[part]) for part in parts}
        for side, found in sides.items()
    }
    truncated = {part: sides["baseline"][part].truncated for part in parts}
    if winner is None:
        return Verdict(None, "baseline", scores, {}, {}, truncated)
    comparisons = {
        part: compare(sides["baseline"][part].outcomes, sides["winner"][part].outcomes)
        for part in parts
    }
    columns = {
        column: {
            str(value): {side: shares[side][value].score for side in sides} | {"n": found.n}
            for value, found in shares["baseline"].items()
        }
        for column in _categories(parts["test"])
        for shares in [
            {
                side: breakdown(e["test"].outcomes, parts["test"], column)
                for side, e in sides.items()
            }
        ]
    }
    composition = str(winner.user_attrs["composition"])
    return Verdict(winner.number, composition, scores, comparisons, columns, truncated)


def _categories(examples: Sequence[Example]) -> list[str]:
    """Columns that sort the examples into a few kinds."""
    names = sorted({name for example in examples for name in example.columns})
    few = []
    for name in names:
        values = {example.columns.get(name) for example in examples}
        if 1 < len(values) <= MAX_VALUES:
            few.append(name)
    return few
