"""Per-example outcomes in Parquet: one file per evaluation, written once, readable anywhere.

``pandas.read_parquet("STUDY/outcomes")`` reads them all; the column `evaluation` tells them apart.
Every measure of the task is a column too.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.cuts.composition import Intervention
from search.durable import write_bytes
from search.study.sealed_files import FORMAT, SEALED, check_parquet, sealed_parquet
from tasks.base import Outcome
from tasks.guarded import GENERAL_TEXT

FOLDER = "outcomes"
META = b"laser-search"
_KINDS = {"str": pa.string(), "float": pa.float64(), "int": pa.int64()}
_COLUMNS = {
    field.name: _KINDS[str(field.type).partition(" ")[0]]
    for field in fields(Outcome)
    if field.name != "measures"
}


@dataclass(frozen=True)
class Evaluation:
    """One composition on one part of the data.

    `name` is the file's stem (``trial-00012``), `study` the study's identity, `effect` what was
    done to the model, `part` the part of the data. `seconds` says where the time went. `score` is
    the weighted mean score of the outcomes, `log_loss` the weighted mean negative log-probability
    of the right answers in nats. Of several tasks `scores` are their mean scores by label, `score`
    is the study's objective, and `log_loss` is averaged over tasks. Where general text has a limit,
    `scores` of validation have it too, though `outcomes` do not. `quadratic`: the weighted mean
    of `tasks.scoring.quadratic_score`; None in files of earlier versions. `truncated` counts the
    questions whose prompt was cut to the model's length. `verified`: not read from a file of an
    earlier version, which has no digest.
    """

    name: str
    study: str
    composition: str
    effect: str
    part: str
    score: float
    log_loss: float
    seconds: dict[str, float]
    outcomes: Sequence[Outcome] = field(repr=False, default=())
    truncated: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    quadratic: float | None = None
    verified: bool = field(default=True, compare=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the outcomes."""
        return {k: v for k, v in self.__dict__.items() if k not in ("outcomes", "verified")}


def outcome_file(folder: Path, name: str) -> Path:
    """Where the outcomes of evaluation `name` lie in a study folder."""
    return folder / FOLDER / f"{name}.parquet"


def write_outcomes(folder: Path, evaluation: Evaluation) -> None:
    """Durably write one evaluation; writing it again replaces it whole."""
    write_outcome_bytes(folder, evaluation.name, outcome_bytes(evaluation))


def write_outcome_bytes(folder: Path, name: str, data: bytes) -> None:
    """Durably write what `outcome_bytes` made of evaluation `name`."""
    path = outcome_file(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, data)


def outcome_bytes(evaluation: Evaluation) -> bytes:
    """One evaluation as a Parquet file in memory."""
    outcomes = evaluation.outcomes
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.measures)
    table = pa.table(
        {
            "evaluation": pa.array([evaluation.name] * len(outcomes), pa.string()),
            **{
                key: pa.array([getattr(outcome, key) for outcome in outcomes], kind)
                for key, kind in _COLUMNS.items()
            },
            **{
                name: pa.array([outcome.measures.get(name) for outcome in outcomes], pa.float64())
                for name in names
            },
        },
        metadata={META: json.dumps({FORMAT: SEALED, **evaluation.facts}).encode()},
    )
    return sealed_parquet(table)


def read_outcomes(
    folder: Path, name: str, study: str, effect: str, *, rows: bool = True
) -> Evaluation | None:
    """Read evaluation `name` if it is there, whole, and of this study and effect; else None."""
    try:
        data = outcome_file(folder, name).read_bytes()
    except OSError:
        return None
    found = parse_outcomes(data, study, effect, rows=rows)
    return found if found is not None and found.name == name else None


def parse_outcomes(data: bytes, study: str, effect: str, *, rows: bool = True) -> Evaluation | None:
    """Read what `outcome_bytes` wrote; None if it is damaged or of another study or effect.

    Without `rows` only the facts; of the examples no more than the file's digest is computed.
    """
    try:
        verified = check_parquet(data)  # first: a reader may fail in any way on damaged bytes
        file = pq.ParquetFile(io.BytesIO(data))
        facts = json.loads(file.schema_arrow.metadata[META])
        if facts.pop(FORMAT, 0) >= SEALED and not verified:
            return None
        table = file.read() if rows else None
        if facts["study"] != study or facts["effect"] != effect:
            return None
        found = [] if table is None else table.drop_columns("evaluation").to_pylist()
        return Evaluation(outcomes=tuple(map(_outcome, found)), verified=verified, **facts)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None  # damaged: it is evaluated again


def _outcome(row: dict[str, Any]) -> Outcome:
    known = {key: row.pop(key) for key in _COLUMNS if key in row}
    return Outcome(**known, measures={k: v for k, v in row.items() if v is not None})


def no_screen(study: str, reason: str) -> Evaluation:
    """A screen that predicts nothing, so that the search goes on without; `reason` says why."""
    return Evaluation("screen", study, reason, "", "screen", 0.0, 0.0, {})


def read_screen(evaluation: Evaluation) -> dict[Intervention, float]:
    """The predicted change of the loss in nats by single cut, of the evaluation of a screen."""
    return {Intervention.parse(o.example_id): -o.score for o in evaluation.outcomes}


def read_costs(evaluation: Evaluation) -> dict[Intervention, float]:
    """The predicted rise of general text's log-loss in nats by single cut, as a screen has it.

    Nothing where general text has no limit, or the screen is of an earlier version.
    """
    return {
        Intervention.parse(o.example_id): o.measures[GENERAL_TEXT]
        for o in evaluation.outcomes
        if GENERAL_TEXT in o.measures
    }


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


def not_finite(evaluation: Evaluation) -> str:
    """What is no number in an evaluation, empty if all are."""
    numbers = {"score": evaluation.score, "log-loss": evaluation.log_loss}
    numbers |= {f"score of {task}": score for task, score in evaluation.scores.items()}
    if all(map(math.isfinite, numbers.values())):
        return ""
    return ", ".join(f"{name} {value}" for name, value in numbers.items()) + ": not finite"
