"""Digests that files of a study carry of themselves, so that damage is never read as data.

A file without one was written by an earlier version: it is read, and cannot be vouched for. That
a file has one is said in two places, so that no single flipped bit makes it look like an old one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.durable import write_json

DIGEST = "digest"
FORMAT = "format"
SEALED = 2
"""The value of FORMAT from which on a file carries its digest."""

_KEY = b"laser-digest"
_BLANK = b"0" * 32
_BETWEEN = 2
"""Bytes between key and value in a Parquet footer: the field's kind and the value's length."""


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""


def sealed_parquet(table: pa.Table) -> bytes:
    """A Parquet file in memory with a digest of all of its bytes in its footer.

    Key ``laser-digest`` of the file's metadata: BLAKE2b-128 in hexadecimal digits of the whole file
    with zeros in their place. Pages have checksums too, for readers that look at those alone.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: _BLANK})
    data = bytearray(sink.getvalue())
    at = _place(data)
    data[at : at + len(_BLANK)] = _digest(bytes(data)).encode()
    return bytes(data)


def check_parquet(data: bytes) -> bool:
    """Whether a file has a digest, the right one. Reads every byte. Raises DamagedError."""
    at = _place(data)
    if at < 0:
        return False
    written = data[at : at + len(_BLANK)]
    if _digest(data[:at] + _BLANK + data[at + len(_BLANK) :]).encode() != written:
        raise DamagedError("its bytes are not those that were written")
    return True


def _place(data: bytes | bytearray) -> int:
    """Where the digest lies, -1 if there is none. The key-value pairs come last in a footer."""
    found = data.rfind(_KEY)
    return -1 if found < 0 else found + len(_KEY) + _BETWEEN


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_sealed_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Durably replace `path` by `facts` as indented JSON, with a digest of them."""
    whole = {FORMAT: SEALED, **facts}
    write_json(path, {**whole, DIGEST: _of_facts(whole)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The facts in a JSON file, checked where it has a digest. Raises OSError, DamagedError."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error) or "it is nested too deeply") from None
    if not isinstance(facts, dict):
        raise DamagedError("it does not contain a mapping")
    written = facts.pop(DIGEST, None)
    if (written is not None or FORMAT in facts) and written != _of_facts(facts):
        raise DamagedError("its content is not what was written")
    facts.pop(FORMAT, None)
    return facts


def _of_facts(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return _digest(text.encode())
