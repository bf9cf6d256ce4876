"""The questions of a study in one Parquet file, so that outcomes can be read beside them.

``STUDY/questions.parquet`` joins ``STUDY/outcomes`` by `example_id`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.durable import write_bytes
from search.study.sealed_files import FORMAT, SEALED, DamagedError, check_parquet, sealed_parquet
from tasks.base import Example
from tasks.datasets import Split
from tasks.errors import InputError

FILE = "questions.parquet"
OWN = ("example_id", "group", "part", "prompt", "text_pair", "answer", "choices", "label")


def write_questions(folder: Path, split: Split) -> None:
    """Durably write every part's questions; a file that is there already is left alone.

    Every further column of the data is a column too, of text where its values differ in type;
    a name that is taken gets the prefix ``data_``. Where there are several tasks, `task` is a
    column.
    """
    path = folder / FILE
    if path.exists():
        return
    asked = [(part, x) for part, examples in split.parts.items() for x in examples]
    columns: dict[str, list[Any]] = {
        "example_id": [x.id for _, x in asked],
        "group": [x.group for _, x in asked],
        "part": [part for part, _ in asked],
        "prompt": [x.prompt for _, x in asked],
        "text_pair": [x.text_pair for _, x in asked],
        "answer": [x.answer for _, x in asked],
        "choices": [json.dumps(x.choices, ensure_ascii=False) for _, x in asked],
        "label": [x.label for _, x in asked],
    }
    examples = [x for _, x in asked]
    if any(x.task for x in examples):
        columns["task"] = [x.task for x in examples]
    taken = set(columns)
    for name in dict.fromkeys(name for x in examples for name in x.columns):
        columns[f"data_{name}" if name in taken else name] = _column(examples, name)
    write_bytes(path, sealed_parquet(pa.table(columns, metadata={FORMAT: str(SEALED)})))


def read_questions(folder: Path) -> dict[str, dict[str, Any]]:
    """All questions by example id. Raises InputError if the study has none on record."""
    path = folder / FILE
    try:
        data = path.read_bytes()
        verified = check_parquet(data)
        table = pq.ParquetFile(io.BytesIO(data)).read()
        if FORMAT.encode() in (table.schema.metadata or {}) and not verified:
            raise DamagedError("its digest is missing")
        rows = table.to_pylist()
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; laser-search resume {folder} writes it again"
        ) from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}); delete it, and laser-search resume {folder} writes it "
            "again"
        ) from None
    return {row["example_id"]: row for row in rows}


def _is_wide(values: list[Any]) -> bool:
    """Whether there is a whole number that 64 bits do not hold; such a column is of text."""
    return any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values)


def _column(examples: list[Example], name: str) -> list[Any]:
    values = [example.columns.get(name) for example in examples]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2 and not _is_wide(values):
        return values
    return [None if value is None else str(value) for value in values]
