"""The folder that is written: whole or not at all, and never over what is not an export."""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from search.durable import sync_folder
from search.leftovers import MARK as OWNER
from search.leftovers import is_abandoned, write_mark
from tasks.errors import InputError

MARK = "interventions.json"
"""The file that every export has, and nothing else."""

VERDICT = "verification.json"
"""The file that says how a check of it ended."""

_SPARE_BYTES = 2**20
"""Room for the card and the like."""


@contextmanager
def new_folder(
    out: Path, needed_bytes: int, *, overwrite: bool = False, keep: Sequence[Path] = ()
) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` when the block ends without an error.

    With `overwrite`, what lies in `out` is removed then; `keep` are folders that must not be.
    Raises InputError if `out` is not empty, is one of `keep`, or the disk lacks `needed_bytes`.
    """
    out = out.absolute()
    _check_free(out, overwrite, keep)
    _check_disk(out, needed_bytes)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
        _remove_abandoned(out)
        partial.mkdir()
        write_mark(partial)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another") from None
    try:
        yield partial
        (partial / OWNER).unlink()
        _open_to_readers(partial)
        sync_folder(partial)
        _swap(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(out: Path) -> None:
    """Remove what a process that was killed had written of the same folder."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.????????"):
        if not folder.is_symlink() and is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _check_free(out: Path, overwrite: bool, keep: Sequence[Path]) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a new folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        if (out / MARK).is_file() and not (out / VERDICT).is_file():
            raise InputError(
                f"{out} holds a model that was not verified after writing (the check was "
                "interrupted or skipped); add --overwrite to write it again, or give a new folder"
            )
        raise InputError(f"{out} exists and is not empty; give a new folder or add --overwrite")
    for folder in keep:
        if folder.resolve() == out.resolve() or out.resolve() in folder.resolve().parents:
            raise InputError(
                f"{out} contains {folder}, which the export reads; choose another folder"
            )
    inner = next((path for path in sorted(out.iterdir()) if path.is_dir()), None)
    if inner is not None and not (out / MARK).is_file():
        raise InputError(
            f"{out} contains folders ({inner.name}) and is not an export; delete it yourself"
        )


def _check_disk(out: Path, needed_bytes: int) -> None:
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    needed = needed_bytes + _SPARE_BYTES
    if free < needed:
        raise InputError(
            f"{out} needs {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free; "
            "free space or choose a folder on another disk"
        )


def _swap(partial: Path, out: Path) -> None:
    """Put `partial` instead of `out`; what was there goes only afterwards."""
    old = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.old"
    if out.exists():
        out.replace(old)
    partial.replace(out)
    sync_folder(out.parent)
    if old.is_symlink():  # what it led to is not ours
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give files the usual permissions: some writers make them private to their owner."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
