"""Looking after a factor cache: checking, measuring and emptying it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.weights.factor_file import DamagedFactorsError, FactorFile
from search.weights.factors import FactorCache
from search.weights.moments import FOLDER
from search.weights.remote import check_factors, open_factors
from tasks.errors import InputError, nearest

ORPHAN_AGE_S = 3600.0
"""A temporary file that nobody touched for so long has lost its writer."""


@dataclass(frozen=True)
class Usage:
    """Files and bytes: of each model that `origins` name, of all factors, and of what is waste."""

    models: dict[str, tuple[int, int]]
    files: int
    bytes: int
    waste: int
    waste_bytes: int


@dataclass(frozen=True)
class Removable:
    """A file that may go, and why; `key` is set if it holds factors."""

    path: Path
    size: int
    reason: str
    key: str = ""


def local(location: str) -> str:
    """`location`, if it is a folder. Raises InputError on a URL: files there are its store's."""
    if "://" in location:
        raise InputError(
            f"{location} is not a folder; use the tools of its store instead, or give a folder"
        )
    return location


def existing(location: str | os.PathLike[str]) -> FactorCache:
    """The cache at `location`. Raises InputError if there is none, or something else."""
    if "://" in os.fspath(location):
        check_factors(location)
        return open_factors(location)
    folder = Path(location)
    if not folder.is_dir():
        raise InputError(
            f"the factors folder {folder} does not exist; give the factors folder of a study"
        )
    cache = FactorCache(folder)
    known = any(folder.glob("??/*.safetensors*")) or (folder / "index.parquet").exists()
    if not known and any(folder.iterdir()):
        raise InputError(f"{folder} is not a factor cache; give the factors folder of a study")
    return cache


def verify_all(cache: FactorCache) -> tuple[int, list[str]]:
    """(number of whole files, keys of damaged ones, which are set aside)."""
    keys = list(cache.keys())
    damaged = [key for key in keys if not cache.verify(key)]
    return len(keys) - len(damaged), damaged


def usage(cache: FactorCache) -> Usage:
    """How much room the cache takes. A file that serves two models counts for both."""
    models: dict[str, tuple[int, int]] = {}
    for key, names in _models(cache).items():
        size = _size(cache.path(key))
        for name in names:
            files, total = models.get(name, (0, 0))
            models[name] = (files + 1, total + size)
    sizes = [_size(cache.path(key)) for key in list(cache.keys())]
    waste = _waste(cache, 0.0)
    return Usage(
        dict(sorted(models.items())),
        len(sizes),
        sum(sizes),
        len(waste),
        sum(item.size for item in waste),
    )


def collect(cache: FactorCache, keep: Sequence[str] | None) -> list[Removable]:
    """What may be removed: waste, and, if `keep` names models, the factors of none of them.

    Raises InputError if a name of `keep` is no model of the index: a slip would empty the cache.
    """
    found = _waste(cache, ORPHAN_AGE_S)
    if not keep:
        return found
    by_key = _models(cache)
    known = {name for names in by_key.values() for name in names}
    for name in keep:
        if name not in known:
            raise InputError(
                f"--keep-model {name!r} has no factors in {cache.root}{nearest(name, known)}; "
                "laser-search factors du lists the models"
            )
    for key, names in by_key.items():
        if names.isdisjoint(keep):
            path = cache.path(key)
            reason = f"factors of {', '.join(sorted(names)) or 'an unknown model'}"
            found.append(Removable(path, _size(path), reason, key))
    return found


def remove(cache: FactorCache, found: Sequence[Removable]) -> None:
    """Delete the files, then their rows of the index. Raises InputError if that is refused."""
    try:
        for item in found:
            item.path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{item.path} cannot be removed ({error.strerror}); make {cache.root} writable"
        ) from None
    cache.forget({item.key for item in found if item.key})


def _models(cache: FactorCache) -> dict[str, set[str]]:
    """Key -> models, the part of each origin before the address."""
    index = cache.index()
    found = {}
    for key in list(cache.keys()):
        # A file that the index lacks, from a builder that died, says itself where it came from.
        origins = index[key].origins if key in index else _own_origin(cache, key)
        found[key] = {origin.rpartition(":")[0] for origin in origins} - {""}
    return found


def _own_origin(cache: FactorCache, key: str) -> tuple[str, ...]:
    try:
        return (FactorFile(cache.path(key)).metadata["origin"],)
    except (DamagedFactorsError, FileNotFoundError):
        return ()


def _waste(cache: FactorCache, age_s: float) -> list[Removable]:
    found = [
        Removable(path, _size(path), "damaged")
        for pattern in ("??/*.damaged", f"{FOLDER}/*/*.damaged")
        for path in cache.root.glob(pattern)
    ]
    now = time.time()
    for pattern in ("??/.*.tmp", ".*.tmp", f"{FOLDER}/*/.*.tmp"):
        for path in cache.root.glob(pattern):
            try:
                old = now - path.stat().st_mtime >= age_s
            except FileNotFoundError:
                continue
            if old:
                found.append(Removable(path, _size(path), "left over by a writer that died"))
    return sorted(found, key=lambda item: item.path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
