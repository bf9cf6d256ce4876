"""Per-example outcomes in Parquet: one file per evaluation, written once, readable anywhere.

``pandas.read_parquet("STUDY/outcomes")`` reads them all; the column `evaluation` tells them apart.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.durable import write_file
from tasks.base import Outcome

FOLDER = "outcomes"
_META = b"laser-search"


@dataclass(frozen=True)
class Evaluation:
    """One composition on one part of the data.

    `name` is the file's stem (``trial-00012``), `study` the study's identity, `effect` what was
    done to the model, `part` the part of the data. `seconds` says where the time went. `score` is
    the mean score of the outcomes, `log_loss` the mean negative log-probability of the right
    answers in nats.
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

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the outcomes."""
        return {k: v for k, v in self.__dict__.items() if k != "outcomes"}


def outcome_file(folder: Path, name: str) -> Path:
    """Where the outcomes of evaluation `name` lie in a study folder."""
    return folder / FOLDER / f"{name}.parquet"


def write_outcomes(folder: Path, evaluation: Evaluation) -> None:
    """Durably write one evaluation; writing it again replaces it whole."""
    data = outcome_bytes(evaluation)
    path = outcome_file(folder, evaluation.name)
    path.parent.mkdir(exist_ok=True)
    write_file(path, lambda temporary: _put(temporary, data))


def outcome_bytes(evaluation: Evaluation) -> bytes:
    """One evaluation as a Parquet file in memory."""
    rows = [asdict(outcome) for outcome in evaluation.outcomes]
    columns = {key: [row[key] for row in rows] for key in Outcome.__dataclass_fields__}
    table = pa.table({"evaluation": [evaluation.name] * len(rows), **columns})
    table = table.replace_schema_metadata({_META: json.dumps(evaluation.facts).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_outcomes(folder: Path, name: str, study: str, effect: str) -> Evaluation | None:
    """Read evaluation `name` if it is there, whole, and of this study and effect; else None."""
    try:
        data = outcome_file(folder, name).read_bytes()
    except OSError:
        return None
    return parse_outcomes(data, study, effect)


def parse_outcomes(data: bytes, study: str, effect: str) -> Evaluation | None:
    """Read what `outcome_bytes` wrote; None if it is damaged or of another study or effect."""
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
        facts = json.loads(table.schema.metadata[_META])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None  # damaged: it is evaluated again
    if facts["study"] != study or facts["effect"] != effect:
        return None
    rows = table.drop_columns("evaluation").to_pylist()
    return Evaluation(outcomes=tuple(Outcome(**row) for row in rows), **facts)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
