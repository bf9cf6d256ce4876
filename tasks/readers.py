"""Rows of local files, each knowing where it came from.

Local files are read here and not through the `datasets` library: that announces every load over
the network, keeps a cache that has to be proved fresh, and infers types chunk by chunk (a sentence
that reads "null" becomes a missing value). Reading directly has no state, so any number of
processes may read one file and an altered file is seen at once.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import InputError, nearest

LISTS = ("examples", "data", "rows")
"""Keys under which a JSON object may hold its list of rows (BIG-bench uses the first)."""


class Row(dict[str, Any]):
    """One row of data; `where` names it for people: ``questions.jsonl line 17``."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def text(self, field: str) -> str:
        """Return the text in `field`, a number written out. Raises InputError if it has none."""
        value = self.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            missing = "is missing" if field not in self else f"is {value!r}"
            hint = nearest(field, self) if field not in self else ""
            raise InputError(f"{self.where}: field {field!r} {missing}, expected text{hint}")
        return value


def read_json(path: Path) -> list[Row]:
    """Read a list of objects, or an object that holds one under ``examples``, ``data``, ``rows``.

    Raises InputError, naming line and column, when the text is not JSON or has another shape.
    """
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}; "
            "a file with one object per line needs the suffix .jsonl"
        ) from None
    if isinstance(data, dict):
        data = next((data[key] for key in LISTS if isinstance(data.get(key), list)), None)
    if not isinstance(data, list):
        raise InputError(
            f"{path} holds no list of rows; expected [{{...}}, ...] or an object with one of "
            f"the keys {', '.join(LISTS)}"
        )
    return [_row(item, f"{path.name} item {number}") for number, item in enumerate(data, 1)]


def read_jsonl(path: Path) -> list[Row]:
    """Read one JSON object per line; blank lines are skipped. Raises InputError with the line."""
    rows = []
    # Only "\n" ends a line: str.splitlines would break at U+2028, which JSON strings may hold.
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where} is not JSON: {error.msg} at column {error.colno}; "
                "expected one object per line"
            ) from None
        rows.append(_row(item, where))
    return rows


def read_lines(path: Path) -> list[Row]:
    """Read a text file: each line is a row with the one field ``text``, blank lines too."""
    lines = _text(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [
        Row({"text": line.rstrip("\r")}, f"{path.name} line {number}")
        for number, line in enumerate(lines, 1)
    ]


def read_parquet(path: Path) -> list[Row]:
    """Read all rows of a Parquet file. Raises InputError when it is not one."""
    import pyarrow
    import pyarrow.parquet

    try:
        items = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from None
    return [Row(item, f"{path.name} row {number}") for number, item in enumerate(items, 1)]


def read_table(path: Path, names: Sequence[str] = ()) -> list[Row]:
    """Read a CSV or TSV file; every value is text.

    `names`: the columns of a file without a header. The first line counts as a header when one of
    its cells is one of `names`, or when there are no `names`. In a CSV file quotes enclose cells;
    in a TSV file a quote means itself, as SST-2 and GLUE have unbalanced ones.
    Raises InputError with the line when a row has more or fewer cells than there are columns.
    """
    records = _csv_records(path) if path.suffix.lower() == ".csv" else _tsv_records(path)
    columns: list[str] | None = None
    rows = []
    for line, cells in records:
        if columns is None:
            header = [cell.strip() for cell in cells]
            if not names or not set(header).isdisjoint(names):
                columns = header
                continue
            columns = list(names)
        where = f"{path.name} line {line}"
        if len(cells) != len(columns):
            raise InputError(
                f"{where} has {len(cells)} cells, expected {len(columns)}: {', '.join(columns)}"
            )
        rows.append(Row(dict(zip(columns, cells, strict=True)), where))
    return rows


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(
            f"{path.name} line {reader.line_num} cannot be read: {error}; "
            "quote cells that hold commas, quotes or line breaks"
        ) from None


def _tsv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r").split("\t")


def _row(item: Any, where: str) -> Row:
    if not isinstance(item, dict):
        raise InputError(f"{where} is {type(item).__name__}, expected an object with named fields")
    return Row(item, where)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
