"""Writing files so that a power cut leaves the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_file(path: Path, fill: Callable[[Path], None], *, private: bool = False) -> None:
    """Let `fill` write a temporary file beside `path`, flush it to disk, then put it in place.

    The temporary file has a unique name in the same folder, so any number of writers may race and
    one of them wins whole. A symbolic link at `path` is replaced, not followed. `private`: for this
    user alone, from its first byte on. Raises OSError as the file system does, and leaves nothing.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        fill(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        if not private:  # mkstemp's files are
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Durably replace `path` by `text` in UTF-8; `private` as for `write_file`."""
    write_bytes(path, text.encode("utf-8"), private=private)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Durably replace `path` by `data`; `private` as for `write_file`."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_file(path, fill, private=private)


def write_json(path: Path, value: Any) -> None:
    """Durably replace `path` by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the platform can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse; the rename is atomic all the same
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
