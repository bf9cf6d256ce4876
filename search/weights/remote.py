"""Factors behind a URL: a bucket that all nodes share, and each node's bounded copy of it."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec

from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.refs import MatrixRef
from search.durable import write_file
from search.weights.factor_file import DamagedFactorsError, FactorFile, Factors
from search.weights.factor_index import Entry, has_origins, merge, read_index, write_index
from search.weights.factors import KEY, FactorCache
from search.weights.moments import DamagedMomentError, MomentStore
from tasks.errors import InputError
from tasks.secrets import hide_secrets

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE = "LASER_FACTORS_CACHE"
BYTES_VARIABLE = "LASER_FACTORS_CACHE_BYTES"
DEFAULT_BYTES = 50 * 10**9
_ORPHAN_AGE_S = 3600.0
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
"""Stores without folders; to make one there would make a bucket that the user misspelt."""
_INDEX_ATTEMPTS = 3
_COPIES = "copies-"
"""Begins the names of folders whose files may go: a cache that is no copy may lie beside them."""
_log = logging.getLogger(__name__)


def open_factors(
    location: str | os.PathLike[str],
    stored: str = "float32",
    inputs: Mapping[MatrixRef, Inputs] | None = None,
) -> FactorCache:
    """The factor cache at `location`, a folder or an fsspec URL such as ``s3://bucket/prefix``.

    `inputs`: what matrices are given, where that was measured. Raises InputError if the URL's
    driver is missing or the node's cache is misconfigured.
    """
    text = os.fspath(location)
    if "://" not in text:
        return FactorCache(text, stored, inputs)
    if text.startswith("file://"):
        return FactorCache(text.removeprefix("file://"), stored, inputs)
    return RemoteFactorCache(text, stored, inputs=inputs)


def open_moments(location: str | os.PathLike[str]) -> MomentStore:
    """The second moments beside the factors at `location`. Raises as `open_factors` does."""
    cache = open_factors(location)
    return RemoteMoments(cache) if isinstance(cache, RemoteFactorCache) else MomentStore(cache.root)


def check_factors(location: str | os.PathLike[str]) -> None:
    """Raise InputError if `location` is a URL that cannot be listed."""
    cache = open_factors(location)
    if isinstance(cache, RemoteFactorCache):
        cache.check()


def cache_bytes() -> int:
    """How much a node may keep of remote factors. Raises InputError on a value that is no size."""
    text = os.environ.get(BYTES_VARIABLE, str(DEFAULT_BYTES))
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"{BYTES_VARIABLE} is {text!r}; give a number of bytes above 0")
    return int(text)


def cache_folder() -> Path:
    """Where a node keeps its copies of remote factors."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "laser-search" / "factors"


class RemoteFactorCache(FactorCache):
    """A FactorCache whose files are at `url`, laid out as in a folder, and copied here when used.

    A copy is checked to the last byte before it is used; a remote file that fails is renamed
    ``*.damaged`` there. What is computed is uploaded; uploads are whole or absent on an object
    store, and writers that race write the same thing. The claims are files of this node: two nodes
    may compute one matrix at a time. The copies of all URLs together stay within `budget_bytes`,
    those used last, unless a single file is larger.
    """

    def __init__(
        self,
        url: str,
        stored: str = "float32",
        folder: Path | None = None,
        budget_bytes: int | None = None,
        inputs: Mapping[MatrixRef, Inputs] | None = None,
    ) -> None:
        """Connects to nothing yet. Raises InputError if no driver knows `url`."""
        self.url = url.rstrip("/")
        self._shown = hide_secrets(self.url, self.url)
        self._base = cache_folder() if folder is None else folder
        self._budget_bytes = cache_bytes() if budget_bytes is None else budget_bytes
        name = hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest()
        super().__init__(self._base / f"{_COPIES}{name}", stored, inputs)
        try:
            found = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError, TypeError) as error:
            scheme = self.url.partition("://")[0]
            extra = " (pip install 'laser-search[s3]')" if scheme.startswith("s3") else ""
            raise InputError(
                f"factors {self._shown!r} needs a driver for {scheme}://{extra}: "
                f"{self._line(error)}"
            ) from None
        self._fs: Any = found[0]
        self._prefix: str = found[1].rstrip("/")

    def check(self) -> None:
        """Raise InputError unless the URL's bucket is there and may be listed."""
        with self._asking():
            try:
                self._fs.ls(self._prefix)
            except FileNotFoundError:
                # An empty prefix is a new cache; a bucket is not ours to make.
                bucket = self._prefix.partition("/")[0]
                if bucket and not self._fs.exists(bucket):
                    raise InputError(
                        f"factors {self._shown!r}: the bucket {bucket!r} does not exist; create it "
                        "or choose another"
                    ) from None

    def has(self, key: str) -> bool:
        """Whether there is a file for `key`, here or there; says nothing of its health."""
        return super().has(key) or self._size(key) is not None

    def keys(self) -> Iterator[str]:
        """The keys of all remote factor files, sorted."""
        with self._asking():
            names = [Path(name) for name in self._fs.find(self._prefix)]
        keys = (name.stem for name in names if name.suffix == ".safetensors")
        yield from sorted(filter(KEY.fullmatch, keys))

    def verify(self, key: str) -> bool:
        """Fetch the remote file of `key` anew and check every byte. False: not there now."""
        self.path(key).unlink(missing_ok=True)
        return self._have(key)

    def load(self, key: str, rank: int | None = None, *, holding: int | None = None) -> Factors:
        """As `FactorCache.load`; fetches what is not here, or is longer there."""
        try:
            return super().load(key, rank, holding=holding)
        except KeyError:
            if not self._renew(key):
                raise
            return super().load(key, rank, holding=holding)

    def index(self) -> dict[str, Entry]:
        """As `FactorCache.index`, of the remote files."""
        self._pull_index()
        return super().index()

    def rebuild(self) -> dict[str, Entry]:
        """As `FactorCache.rebuild`: fetches every remote file."""
        entries = super().rebuild()
        self._put(self._index_path)
        return entries

    def flush(self) -> None:
        """Merge what `ensure` noted into the remote index.

        Two nodes that write it at one moment may lose rows, so what was written is read again; the
        files themselves say where they came from.
        """
        pending, self._pending = self._pending, {}
        if not pending:
            return
        with self._lock():
            for _ in range(_INDEX_ATTEMPTS):
                self._pull_index()
                table = read_index(self._index_path)
                if table is not None and has_origins(table, pending):
                    return
                self._durably(self._index_path, partial(write_index, table=merge(table, pending)))
                self._put(self._index_path)

    def _open(self, key: str) -> FactorFile:
        self._have(key)
        return super()._open(key)

    def _whole(self, key: str) -> FactorFile | None:
        self._have(key)
        file = super()._whole(key)
        if file is None and self._have(key):  # the copy was damaged; the remote file is not
            file = super()._whole(key)
        return file

    def is_ready(self, key: str, origin: str, rank: int | None) -> bool:
        """As of a folder; a copy that is damaged or short is fetched again."""
        ready = super().is_ready(key, origin, rank)
        if not ready:
            ready = self._renew(key) and super().is_ready(key, origin, rank)
        if ready:
            self._share(key)
        return ready

    def _compute(
        self,
        matrix: Tensor,
        key: str,
        origin: str,
        rank: int | None,
        factoring: Factoring | None,
    ) -> FactorFile:
        file = super()._compute(matrix, key, origin, rank, factoring)
        self._share(key)
        self._make_room(0, sparing=file.path)
        return file

    def _have(self, key: str) -> bool:
        """Have a copy of `key` here, as one that was used now; fetch it if need be."""
        path = self.path(key)
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # file systems do not keep the time of access by themselves
                return True
        return self._fetch(key)

    def _renew(self, key: str) -> bool:
        """Fetch the remote file if it is longer than the copy, since it holds more ranks."""
        path, size = self.path(key), self._size(key)
        if size is None or (path.is_file() and path.stat().st_size >= size):
            return False
        return self._fetch(key)

    def _fetch(self, key: str) -> bool:
        """Copy a remote file and check it whole; False if there is none, or a damaged one."""
        size = self._size(key)
        if size is None:
            return False
        path = self.path(key)
        self._make_room(size, sparing=path)

        def fill(temporary: Path) -> None:
            with self._asking():
                self._fs.get_file(self._remote(path), str(temporary))
            file = FactorFile(temporary)
            self._check_key(file, key)
            file.rows(0, file.rank)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, fill)
        except FileNotFoundError:
            return False
        except DamagedFactorsError as error:
            self._set_remote_aside(path, error)
            return False
        except OSError as error:
            raise self._refusal(error) from None
        return True

    def _share(self, key: str) -> None:
        """Upload the copy of `key` unless as much of it is there."""
        path, size = self.path(key), self._size(key)
        if size is None or size < path.stat().st_size:
            self._put(path)

    def _make_room(self, size: int, sparing: Path) -> None:
        """Drop the copies used longest ago until `size` more bytes fit, and orphaned temporaries.

        A copy that another process has mapped stays readable to it.
        """
        copies = []
        for path in self._base.glob(f"{_COPIES}*/??/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == ".safetensors":
                    copies.append((status.st_mtime, status.st_size, path))
                elif path.suffix == ".tmp" and status.st_mtime < time.time() - _ORPHAN_AGE_S:
                    path.unlink()
        held = sum(copy[1] for copy in copies)
        for _, freed, path in sorted(copies):
            if held + size <= self._budget_bytes:
                return
            if path != sparing:
                path.unlink(missing_ok=True)
                held -= freed

    def _pull_index(self) -> None:
        """Replace the copy of the index by the remote one, or by none."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_file(self._index_path, self._get_index)
        except FileNotFoundError:
            self._index_path.unlink(missing_ok=True)
        except OSError as error:
            raise self._refusal(error) from None

    def _get_index(self, temporary: Path) -> None:
        with self._asking():
            self._fs.get_file(self._remote(self._index_path), str(temporary))

    def _remote(self, path: Path) -> str:
        return f"{self._prefix}/{path.relative_to(self.root).as_posix()}"

    def _size(self, key: str) -> int | None:
        """Bytes of the remote file of `key`; None if there is none."""
        try:
            with self._asking():
                return int(self._fs.info(self._remote(self.path(key)))["size"])
        except FileNotFoundError:
            return None

    def open_remote(self, place: str) -> BinaryIO:
        """The remote file at `place` below the URL. Raises FileNotFoundError."""
        with self._asking():
            found: BinaryIO = self._fs.open(f"{self._prefix}/{place}", "rb")
            return found

    def put_bytes(self, place: str, data: bytes) -> None:
        """Write a remote file at `place` below the URL, whole or not at all."""
        with self._putting(f"{self._prefix}/{place}") as remote:
            self._fs.pipe_file(remote, data)

    def _put(self, path: Path) -> None:
        with self._putting(self._remote(path)) as remote:
            self._fs.put_file(str(path), remote)

    @contextmanager
    def _putting(self, remote: str) -> Iterator[str]:
        """Have the folder of a remote file, where there are folders."""
        try:
            with self._asking():
                if self.url.partition("://")[0] not in _OBJECT_STORES:
                    self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
                yield remote
        except FileNotFoundError as error:
            raise InputError(
                f"factors {self._shown!r} cannot be written: {self._line(error)}"
            ) from None

    def _set_remote_aside(self, path: Path, error: DamagedFactorsError) -> None:
        self.set_remote_aside(path.relative_to(self.root).as_posix(), error)

    def set_remote_aside(self, place: str, error: Exception) -> None:
        """Rename the remote file at `place` below the URL, which is damaged, to ``*.damaged``."""
        remote = f"{self._prefix}/{place}"
        with suppress(FileNotFoundError), self._asking():  # another reader may have done it
            self._fs.mv(remote, f"{remote}.damaged")
        _log.warning("%s/%s (%s); set aside as *.damaged", self._shown, Path(place).name, error)

    def _set_aside(self, path: Path, error: DamagedFactorsError) -> None:
        """A damaged copy goes; the remote file is fetched again."""
        path.unlink(missing_ok=True)
        _log.warning("%s; the copy was deleted and will be downloaded again", error)

    def _line(self, error: Exception) -> str:
        """What a driver says, without the keys of the URL."""
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return hide_secrets(said, self.url)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say what the store refuses in a sentence; that a file is not there is no refusal."""
        try:
            yield
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:  # each driver has errors of its own
            raise InputError(
                f"factors {self._shown!r} cannot be used: {self._line(error)}; check the address, "
                "the network and the credentials; what is already computed is kept"
            ) from None


class RemoteMoments(MomentStore):
    """Second moments at a URL; read there each time, for few processes need one twice."""

    def __init__(self, cache: RemoteFactorCache) -> None:
        """Beside the factors of `cache`."""
        super().__init__(cache.url)
        self._cache = cache

    def _claims(self) -> Path:
        return self._cache.root

    def _open(self, place: str) -> BinaryIO:
        return self._cache.open_remote(place)

    def _write(self, place: str, data: bytes) -> None:
        self._cache.put_bytes(place, data)

    def _set_aside(self, place: str, error: DamagedMomentError) -> None:
        self._cache.set_remote_aside(place, error)
