"""The Parquet index of a factor cache: a row per matrix, with its spectrum and its origins."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from search.weights.factor_file import FactorFile

_log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
        ("method", pa.string()),
        ("spectrum", pa.list_(pa.float32())),
        ("origins", pa.list_(pa.string())),
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One row: `shape` (out, in), `spectrum` descending, `bytes` of the file, sorted `origins`."""

    key: str
    shape: tuple[int, int]
    dtype: str
    method: str
    spectrum: tuple[float, ...]
    origins: tuple[str, ...]
    bytes: int

    @staticmethod
    def of(file: FactorFile, origin: str | None) -> Entry:
        """The row of an open file, with `origin` beside the one that the file names."""
        metadata = file.metadata
        return Entry(
            key=metadata["key"],
            shape=file.shape,
            dtype=metadata["dtype"],
            method=metadata["method"],
            spectrum=tuple(file.spectrum.tolist()),
            origins=tuple(sorted({metadata["origin"], origin or metadata["origin"]})),
            bytes=file.path.stat().st_size,
        )


def read_index(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """The table, or these `columns` of it; None if there is none, or (warned) it is damaged."""
    if not path.exists():
        return None
    try:
        return pq.read_table(path, columns=columns, schema=SCHEMA, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        _log.warning("%s cannot be read (%s); rebuilding it from the factor files", path, error)
        return None


def merge(table: pa.Table | None, entries: Mapping[str, Entry]) -> pa.Table:
    """`table` with the rows of `entries`, whose origins are added to those of rows it has."""
    fresh = dict(entries)
    if table is not None:
        known = pc.is_in(table["key"], value_set=pa.array(list(entries), pa.string()))
        for old in entries_of(table.filter(known)).values():
            origins = tuple(sorted({*old.origins, *fresh[old.key].origins}))
            fresh[old.key] = replace(fresh[old.key], origins=origins)
        table = table.filter(pc.invert(known))
    columns = {
        name: [_plain(getattr(entry, name)) for entry in fresh.values()] for name in SCHEMA.names
    }
    rows = pa.table(columns, schema=SCHEMA)
    return (rows if table is None else pa.concat_tables([table, rows])).sort_by("key")


def without(table: pa.Table, keys: Collection[str]) -> pa.Table:
    """`table` less the rows of `keys`."""
    gone = pc.is_in(table["key"], value_set=pa.array(list(keys), pa.string()))
    return table.filter(pc.invert(gone))


def entries_of(table: pa.Table) -> dict[str, Entry]:
    """The rows by key."""
    return {
        row["key"]: Entry(
            **row
            | {
                "shape": tuple(row["shape"]),
                "spectrum": tuple(row["spectrum"]),
                "origins": tuple(row["origins"]),
            }
        )
        for row in table.to_pylist()
    }


def has_origins(table: pa.Table, entries: Mapping[str, Entry]) -> bool:
    """Whether `table` already names every origin of `entries`."""
    known = dict(zip(table["key"].to_pylist(), table["origins"].to_pylist(), strict=True))
    return all(set(e.origins) <= set(known.get(key, ())) for key, e in entries.items())


def write_index(path: Path, table: pa.Table) -> None:
    """Write the table to `path`, not durably by itself. Raises OSError."""
    pq.write_table(table, path)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
