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
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from tasks.errors import InputError, nearest
from tasks.foreign import reading

LISTS = ("examples", "data", "rows")
"""Keys under which a JSON object may hold its list of rows (BIG-bench uses the first)."""


_HALF = re.compile("[\ud800-\udfff]")

MISSING_CELLS = frozenset(("nan", "NaN", "<NA>"))
"""Cells by which numpy and pandas write a missing value into a table; words such as NA are text."""

WHOLE = re.compile(r"(-?\d+)\.0+")
"""A whole number that was written as a float, as pandas does with integers of which some miss."""


class Row(dict[str, Any]):
    """One row of data; `where` names it for people: ``questions.jsonl line 17``.

    NaN is None in it, within lists and objects too: it is how pandas and numpy write what is
    missing, and as a text it would be an answer or a group like any other.
    """

    def __init__(self, values: Mapping[str, Any], where: str, *, cells: bool = False) -> None:
        """`cells`: the values are a table's, where a text may stand for a missing value."""
        super().__init__({name: _present(value) for name, value in values.items()})
        self.where = where
        self._lost: dict[str, str] = {}
        if cells:
            self._lost = {n: v for n, v in self.items() if v.strip() in MISSING_CELLS}
            self.update(dict.fromkeys(self._lost))

    def has(self, field: str) -> bool:
        """Whether `field` holds anything: not absent, null, NaN or blank."""
        value = self.get(field)
        return bool(value.strip()) if isinstance(value, str) else value is not None

    def text(self, field: str) -> str:
        """Return the text in `field`, a number written out. Raises InputError if it has none."""
        value = self.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = value if value in (math.inf, -math.inf) else str(value)
        if not isinstance(value, str) or not value.strip():
            missing = "is missing" if field not in self else f"is {value!r}"
            hint = nearest(field, self) if field not in self else ""
            if field in self._lost:
                hint = f" ({self._lost[field]!r} in a table means missing; write it as .jsonl)"
            raise InputError(f"{self.where}: field {field!r} {missing}, expected text{hint}")
        return value

    def texts(self, field: str) -> list[str]:
        """Return the texts of the list in `field`. Raises InputError if one of them is none."""
        items = {f"{field}[{n}]": item for n, item in enumerate(self[field])}
        inner = Row(items, self.where)
        return [inner.text(item) for item in items]

    def name(self, field: str) -> str:
        """Return what `field` calls something: 1, 1.0 and ``1.0`` are one name, ``1``.

        Raises InputError if it has none.
        """
        value = self.get(field)
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        text = self.text(field).strip()
        whole = WHOLE.fullmatch(text)
        return str(int(whole[1])) if whole else text


def read_json(path: Path) -> list[Row]:
    """Read a list of objects, or an object that holds one under ``examples``, ``data``, ``rows``.

    Raises InputError, naming line and column, when the text is not JSON or has another shape.
    """
    text = _text(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}; "
            "a file with one object per line needs the suffix .jsonl"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(_unreadable(str(path), error)) from None
    if isinstance(data, dict):
        data = next((data[key] for key in LISTS if isinstance(data.get(key), list)), None)
    if not isinstance(data, list):
        raise InputError(
            f"{path} contains no list of rows; expected [{{...}}, ...] or an object with one of "
            f"the keys {', '.join(LISTS)}"
        )
    halves = _spells_halves(text)
    return [_row(item, f"{path.name} item {number}", halves) for number, item in enumerate(data, 1)]


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
        except (ValueError, RecursionError) as error:
            raise InputError(_unreadable(where, error)) from None
        rows.append(_row(item, where, _spells_halves(line)))
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
    import pyarrow.parquet

    with reading(
        str(path), "write it again as Parquet, or as .jsonl", "is not a complete Parquet file"
    ):
        items = pyarrow.parquet.read_table(path).to_pylist()
    return [Row(item, f"{path.name} row {number}") for number, item in enumerate(items, 1)]


def read_table(path: Path, names: Sequence[str] = ()) -> list[Row]:
    """Read a CSV or TSV file; every value is text, or None where it is one of MISSING_CELLS.

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
            twice = [name for name in header if name and header.count(name) > 1]
            if twice and (not names or twice[0] in names):
                raise InputError(
                    f"{path.name} line {line} names the column {twice[0]!r} twice; give each "
                    "column a name of its own"
                )
            if not names or not set(header).isdisjoint(names):
                columns = header
                continue
            columns = list(names)
        where = f"{path.name} line {line}"
        if len(cells) != len(columns):
            raise InputError(
                f"{where} has {len(cells)} cells, expected {len(columns)}: {', '.join(columns)}"
            )
        rows.append(Row(dict(zip(columns, cells, strict=True)), where, cells=True))
    return rows


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # a cell may be a whole document
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


def _present(value: Any) -> Any:
    """`value` with None for NaN, and numpy's numbers, such as half floats, as Python's."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {name: _present(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_present(inner) for inner in value]
    if isinstance(value, Integral):  # numpy's own numbers are such too
        return int(value)
    if isinstance(value, Real):
        return None if math.isnan(value) else float(value)
    return value


def _row(item: Any, where: str, halves: bool) -> Row:
    """A row that was read from JSON; `halves`: it may hold half a character."""
    if not isinstance(item, dict):
        raise InputError(f"{where} is {type(item).__name__}, expected an object with named fields")
    if halves:
        for name, value in item.items():
            if _HALF.search(json.dumps([name, value], ensure_ascii=False)):
                raise InputError(
                    f"{where}: field {name!r} contains half a character (a lone surrogate such as "
                    "\\ud83d), which is invalid in text; save the file again as UTF-8"
                )
    try:
        return Row(item, where)
    except RecursionError as error:
        raise InputError(_unreadable(where, error)) from None


def _spells_halves(text: str) -> bool:
    """Whether JSON may hold half a character, which no UTF-8 can but an escape of JSON spells."""
    return "\\ud" in text or "\\uD" in text


def _unreadable(where: str, error: Exception) -> str:
    """Why JSON that is well formed cannot be read."""
    if isinstance(error, RecursionError):
        return f"{where} is nested too deeply to be read; expected an object with plain fields"
    return f"{where} contains a number with too many digits ({error}); quote it as text"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
