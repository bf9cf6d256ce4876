"""The content-addressed cache of exact factors, shared by any number of processes."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock

from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.refs import MatrixRef
from search.durable import write_file
from search.weights import factor_file
from search.weights.claims import claim
from search.weights.factor_file import DamagedFactorsError, FactorFile, Factors
from search.weights.factor_index import (
    Entry,
    entries_of,
    has_origins,
    merge,
    read_index,
    without,
    write_index,
)
from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Busy", "DamagedFactorsError", "FactorCache", "Factors", "content_key"]

_log = logging.getLogger(__name__)
_BATCH_ENTRIES = 16
ALGORITHM = 1
"""Version of `search.weights.svd`; a change that moves its results by a bit needs a new one."""

METHOD = "exact"
"""What keys and files say of how the factors were made, where no kind of cut has its own way."""


KEY = re.compile(r"[0-9a-f]{8,64}")
"""A key as `content_key` makes it; an index or a bucket may say anything, and keys name files."""


def content_key(weight: Tensor, stored: str = "float32", factoring: Factoring | None = None) -> str:
    """Hexadecimal digest of a matrix [out, in] and of the algorithm that will factor it.

    Of the bytes, the shape, the dtype, the algorithm's version, what the factors are rounded to,
    and how they are made, if not as the SVD: one matrix has one key whatever its model is called,
    and other bytes, another dtype, a new algorithm, coarser or other factors have another.
    """
    rounded = "" if stored == "float32" else f"+{stored}"
    head = f"{_method(factoring)}{rounded}:{ALGORITHM}:{weight.dtype}:{tuple(weight.shape)}\0"
    import torch

    digest = hashlib.blake2b(head.encode(), digest_size=20)
    flat = weight.detach().contiguous().reshape(-1).cpu().view(torch.uint8)
    digest.update(flat.numpy().data)
    return digest.hexdigest()


def _method(factoring: Factoring | None) -> str:
    return METHOD if factoring is None else factoring.name


class Busy(Exception):  # noqa: N818  (no error: the work is being done)
    """Another process is computing these factors, or others whose keys begin alike."""


class FactorCache:
    """Exact factors on disk: ``<root>/<key[:2]>/<key>.safetensors`` and ``index.parquet``.

    A key is a digest of content, so a file that is there is right or damaged, never stale, and
    builders that race write the same thing. Damaged files are renamed ``*.damaged`` with a warning
    and computed again. The index names each key's shape, spectrum and origins; it is written after
    the files it names, and can be rebuilt from them. As a context manager the cache writes the
    index in batches, and the rest on leaving. A complete cache may be read-only.

    `stored` ``bfloat16`` halves the files. Each entry of U and V is then off by up to 1/256 of
    itself, and a product by 0.0024 of its norm (measured). Such factors have keys of their own: a
    reader gets them only if it asks for them.

    `inputs`: what matrices are given, where that was measured, for kinds of cut that need it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        stored: str = "float32",
        inputs: Mapping[MatrixRef, Inputs] | None = None,
    ) -> None:
        if stored not in factor_file.STORED_DTYPES:
            raise InputError(
                f"factors cannot be stored in {stored!r}; "
                f"expected one of {', '.join(factor_file.STORED_DTYPES)}"
            )
        self.root = Path(root)
        self.stored = stored
        self.inputs: Mapping[MatrixRef, Inputs] = dict(inputs or {})
        self._pending: dict[str, Entry] = {}
        self._batch = 1

    def __enter__(self) -> FactorCache:
        self._batch = _BATCH_ENTRIES
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._batch = 1
        self.flush()

    def path(self, key: str) -> Path:
        """Where the factors of `key` are or would be."""
        if not KEY.fullmatch(key):
            raise InputError(
                f"{self.root} has no factors of {key!r}, which is not the key of a matrix"
            )
        return self.root / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether there is a file for `key`; says nothing of its health."""
        return self.path(key).is_file()

    def key(self, weight: Tensor, factoring: Factoring | None = None) -> str:
        """The key of the factors of `weight` [out, in] in this cache; see `content_key`."""
        return content_key(weight, self.stored, factoring)

    def keys(self) -> Iterator[str]:
        """The keys of all factor files, sorted."""
        for path in sorted(self.root.glob("??/*.safetensors")):
            if KEY.fullmatch(path.stem):
                yield path.stem

    def ensure(
        self,
        weight: Tensor | Callable[[], Tensor],
        key: str,
        origin: str,
        *,
        rank: int | None = None,
        keep: int | None = None,
        wait: bool = True,
        factoring: Factoring | None = None,
    ) -> bool:
        """Have the first `rank` ranks (None: all) of `key` on disk; return whether computed here.

        `weight` [out, in] is the matrix or reads it, and is used only if they are missing, fewer or
        damaged; `origin` says where it came from, for the index. Every byte of a file that is there
        is checked. `keep`: ranks to store if they are computed (default: `rank`). While one process
        computes, others wait for it, or with `wait` False raise Busy. `factoring`: how they
        are made, if not as the exact SVD. Raises ValueError if the matrix has another key,
        InputError if it has no SVD or the folder cannot be written.
        """
        if self.is_ready(key, origin, rank):
            return False
        with self._claim(key, wait) as held:
            if not held:
                raise Busy(key)
            # Another process may have finished between the look and the claim.
            if self.is_ready(key, origin, rank):
                return False
            matrix = weight() if callable(weight) else weight
            if self.key(matrix, factoring) != key:
                raise ValueError(f"the matrix from {origin} does not have the key {key}")
            file = self._compute(matrix, key, origin, rank if keep is None else keep, factoring)
        self._note(file, origin, new=True)
        return True

    def is_ready(self, key: str, origin: str, rank: int | None) -> bool:
        """Whether the first `rank` ranks of `key` (None: all) are on disk, every byte as it was.

        The index then knows of `origin`. A damaged file is set aside.
        """
        file = self._whole(key)
        if file is None or file.rank < min(rank or max(file.shape), *file.shape):
            return False
        self._note(file, origin, new=False)
        return True

    def _compute(
        self,
        matrix: Tensor,
        key: str,
        origin: str,
        rank: int | None,
        factoring: Factoring | None,
    ) -> FactorFile:
        from search.weights.svd import decompose

        parts = decompose(matrix) if factoring is None else factoring.decompose(matrix)
        metadata = {
            "key": key,
            "method": _method(factoring),
            "algorithm": str(ALGORITHM),
            "dtype": str(matrix.dtype).removeprefix("torch."),
            "out": str(matrix.shape[0]),
            "in": str(matrix.shape[1]),
            "origin": origin,
        }
        if rank is not None and rank < min(matrix.shape):
            metadata["rank"] = str(max(1, rank))
        if self.stored != "float32":
            metadata["stored"] = self.stored
        U, S, V = (part.cpu() for part in parts)
        path = self.path(key)
        self._durably(path, lambda temporary: factor_file.write(temporary, metadata, U, S, V))
        return FactorFile(path)

    @contextmanager
    def _claim(self, key: str, wait: bool) -> Iterator[bool]:
        """One computes what starts with the same two digits; 256 files, which never go."""
        folder = self.path(key).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = claim(folder / ".claim", wait=wait)
            found = held.__enter__()
        except OSError as error:
            raise self._refusal(error) from None
        try:
            yield found
        finally:
            held.__exit__(None, None, None)

    def verify(self, key: str) -> bool:
        """Check every byte of the file of `key`; set it aside if damaged. False: not there now."""
        return self._whole(key) is not None

    def _whole(self, key: str) -> FactorFile | None:
        """The file of `key` if it is there and every byte of it is right."""
        path = self.path(key)
        try:
            file = FactorFile(path)
            self._check_key(file, key)
            file.rows(0, file.rank)
        except FileNotFoundError:
            return None
        except DamagedFactorsError as error:
            self._set_aside(path, error)
            return None
        return file

    def load(self, key: str, rank: int | None = None, *, holding: int | None = None) -> Factors:
        """The factors of `key`, of which the first `rank` rows (all if None) are read and checked.

        Memory-mapped: other rows are not touched until they are used, but the file must have the
        first `holding` of them (default: `rank`). Raises KeyError if there are none or too few,
        DamagedFactorsError (after setting the file aside) if what was read is damaged.
        """
        path = self.path(key)
        file = self._open(key)
        full = len(file.spectrum)
        wanted = rank if holding is None else holding
        if file.rank < min(full if wanted is None else wanted, full):
            raise KeyError(f"the factors of {key} in {self.root} hold {file.rank} of {full} ranks")
        return Factors(
            file,
            full if rank is None else min(rank, full),
            lambda error: self._set_aside(path, error),
        )

    def spectrum(self, key: str) -> Tensor:
        """The singular values [k] of `key`, descending, float32. Raises as `load` does."""
        return self._open(key).spectrum

    def flush(self) -> None:
        """Merge what `ensure` noted into the index on disk. Safe among processes."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        table = read_index(self._index_path, ["key", "origins"])
        if table is not None and has_origins(table, pending):
            return
        with self._lock():
            table = read_index(self._index_path)
            merged = merge(self._scan() if table is None else table, pending)
            self._durably(self._index_path, lambda temporary: write_index(temporary, merged))

    def index(self) -> dict[str, Entry]:
        """The index by key, as on disk; made from the factor files if it cannot be read."""
        table = read_index(self._index_path)
        return entries_of(self._scan() if table is None else table)

    def rebuild(self) -> dict[str, Entry]:
        """Write the index anew from the factor files; later origins of a known key are lost."""
        with self._lock():
            table = self._scan()
            self._durably(self._index_path, lambda temporary: write_index(temporary, table))
        return entries_of(table)

    def forget(self, keys: set[str]) -> None:
        """Take the rows of `keys` out of the index; their files are the caller's affair."""
        if not keys:
            return
        with self._lock():
            table = read_index(self._index_path)
            kept = self._scan() if table is None else without(table, keys)
            self._durably(self._index_path, lambda temporary: write_index(temporary, kept))

    def _scan(self) -> pa.Table:
        """The index that the factor files amount to; damaged ones are set aside."""
        entries = {}
        for key in self.keys():
            try:
                entries[key] = Entry.of(self._open(key), None)
            except (DamagedFactorsError, KeyError):
                continue
        return merge(None, entries)

    @property
    def _index_path(self) -> Path:
        return self.root / "index.parquet"

    def _open(self, key: str) -> FactorFile:
        path = self.path(key)
        try:
            file = FactorFile(path)
            self._check_key(file, key)
        except FileNotFoundError:
            raise KeyError(f"no factors for {key} in {self.root}") from None
        except DamagedFactorsError as error:
            self._set_aside(path, error)
            raise
        return file

    @staticmethod
    def _check_key(file: FactorFile, key: str) -> None:
        if file.metadata.get("key") != key:
            raise DamagedFactorsError(f"{file.path} is damaged: it contains another matrix")

    def _note(self, file: FactorFile, origin: str, new: bool) -> None:
        """Remember the row of a file for the index, and write it if it is due."""
        entry = Entry.of(file, origin)
        known = self._pending.get(entry.key)
        origins = {*entry.origins, *(known.origins if known else ())}
        self._pending[entry.key] = replace(entry, origins=tuple(sorted(origins)))
        if len(self._pending) < self._batch:
            return
        try:
            self.flush()
        except InputError:
            if new:
                raise
            # Nothing was computed; a read-only cache that is complete stays usable.
            _log.info("the index of %s cannot be written; %s is not recorded", self.root, origin)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the index, against all processes that use this folder."""
        lock = FileLock(self.root / ".index.lock", mode=0o666)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self._refusal(error) from None
        try:
            yield
        finally:
            lock.release()

    def _durably(self, path: Path, fill: Callable[[Path], None]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, fill)
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> InputError:
        # Arrow names the error in its text alone.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        remedy = "free some space" if full else "make it writable"
        return InputError(
            f"the factors folder {self.root} cannot be written "
            f"({error.strerror or error}); {remedy} or choose another folder; "
            "what is already computed is kept"
        )

    def _set_aside(self, path: Path, error: DamagedFactorsError) -> None:
        """Rename a damaged file to ``*.damaged``, if it is still there and may be renamed."""
        try:
            path.replace(path.with_name(f"{path.name}.damaged"))
        except OSError as refusal:
            _log.warning("%s; it stays where it is (%s)", error, refusal.strerror)
        else:
            _log.warning("%s; set aside as %s.damaged", error, path.name)
