"""One file of factors: safetensors, rank-major, with a digest for every row.

Tensors, in the order of their bytes: ``spectrum`` F32 [k], ``digests`` U8 [r, 16] (8 bytes for the
row of U, 8 for that of V), ``U`` [r, out], ``V`` [r, in]. Row i belongs to the i-th largest
singular value, so a rank is a prefix of U and of V. A file holds all r = k = min(out, in) rows, or
the first ``rank`` of its metadata; U and V are F32, or BF16 where the metadata's ``stored`` says
so. The metadata carries a digest of itself and of the spectrum, and the header is a function of the
metadata, so each byte of the file is covered by one digest or another, and reading some rows checks
those rows.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.witness import Trace

if TYPE_CHECKING:  # a cache is measured and emptied without it
    import torch
    from torch import Tensor

_ROW_DIGEST_BYTES = 8
_LOOKS = 3
"""How often rows are read again because the file changed while they were being copied."""
FORMAT = "laser-factors-1"
_STORED = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}
STORED_DTYPES = tuple(_STORED)
"""What U and V can be stored in; the spectrum is float32 always."""


class DamagedFactorsError(Exception):
    """A factor file whose bytes are not those that were written."""


def layout(metadata: dict[str, str]) -> tuple[bytes, dict[str, tuple[int, tuple[int, ...]]], int]:
    """(header with its length, name -> (offset in the file, shape), size of the file in bytes).

    A function of the metadata alone. Raises KeyError or ValueError on metadata of another kind.
    """
    out, into = int(metadata["out"]), int(metadata["in"])
    full = min(out, into)
    rank = int(metadata.get("rank", full))
    if not 1 <= rank <= full:
        raise ValueError(f"its rank {rank} is outside [1, {full}]")
    stored, width = _STORED[metadata.get("stored", "float32")]
    shapes: dict[str, tuple[str, int, tuple[int, ...]]] = {
        "spectrum": ("F32", 4, (full,)),
        "digests": ("U8", 1, (rank, 2 * _ROW_DIGEST_BYTES)),
        "U": (stored, width, (rank, out)),
        "V": (stored, width, (rank, into)),
    }
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offsets, start = {}, 0
    for name, (dtype, width, shape) in shapes.items():
        stop = start + width * int(np.prod(shape))
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        offsets[name] = (start, shape)
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    absolute = {name: (len(header) + at, shape) for name, (at, shape) in offsets.items()}
    return header, absolute, len(header) + start


def write(path: Path, metadata: dict[str, str], U: Tensor, S: Tensor, V: Tensor) -> None:
    """Write factors U [out, k], S [k], V [in, k], float32, to `path`, row by rank.

    `metadata` needs ``out`` and ``in``, and may limit the rows to ``rank`` and round them to
    ``stored``. Not durable by itself. Raises OSError.
    """
    rank = int(metadata.get("rank", len(S)))
    stored = metadata.get("stored", "float32")
    left, right = _bits(U.T[:rank], stored), _bits(V.T[:rank], stored)
    spectrum = np.ascontiguousarray(S.numpy())
    pairs = zip(left, right, strict=True)
    digests = b"".join(_row(i, u) + _row(i, v) for i, (u, v) in enumerate(pairs))
    full = {**metadata, "format": FORMAT}
    full["check"] = _check(full, spectrum.tobytes())
    header, _, _ = layout(full)
    with path.open("wb") as stream:
        stream.write(header)
        stream.write(spectrum.tobytes())
        stream.write(digests)
        stream.write(left.data)
        stream.write(right.data)


def _bits(rows: Tensor, stored: str) -> NDArray[Any]:
    """The rows as they lie in the file; numpy has no bfloat16, so its bits are 16-bit integers."""
    if stored == "bfloat16":
        import torch

        found: NDArray[Any] = rows.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
        return found
    return np.ascontiguousarray(rows.numpy())


def _row(index: int, values: NDArray[Any]) -> bytes:
    # The index is part of the digest, so that rows cannot change places.
    digest = hashlib.blake2b(struct.pack("<I", index), digest_size=_ROW_DIGEST_BYTES)
    digest.update(values.data)
    return digest.digest()


def _check(metadata: dict[str, str], spectrum: bytes) -> str:
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode() + b"\0" + spectrum, digest_size=16).hexdigest()


class FactorFile:
    """An open factor file: checked header and spectrum, rows checked when first used.

    The file is memory-mapped; only the rows that are asked for are read. Raises DamagedFactorsError
    here or in `rows`, FileNotFoundError if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trace = Trace.of(path)
        try:
            self.metadata, self._places = self._open()
        except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
            raise DamagedFactorsError(f"{path} is damaged: {error!r}") from None
        self.shape = (int(self.metadata["out"]), int(self.metadata["in"]))
        self.rank = self._places["U"][1][0]
        self._width = _STORED[self.metadata.get("stored", "float32")][1]
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        if hasattr(mmap, "MADV_RANDOM"):
            # No read-ahead past the rows that are asked for; `rows` announces those.
            self._map.madvise(mmap.MADV_RANDOM)
        self._digests = self._array("digests", np.uint8)
        values = np.float32 if self._width == 4 else np.uint16
        self._left = self._array("U", values)
        self._right = self._array("V", values)
        self._checked = np.zeros(self.rank, dtype=bool)

    def _open(self) -> tuple[dict[str, str], dict[str, tuple[int, tuple[int, ...]]]]:
        size = self.path.stat().st_size
        with self.path.open("rb") as stream:
            prefix = stream.read(8)
            (length,) = struct.unpack("<Q", prefix)
            if length > size:
                raise ValueError("its header is longer than the file")
            text = stream.read(length)
            metadata: dict[str, str] = json.loads(text)["__metadata__"]
            header, places, expected = layout(metadata)
            if prefix + text != header:
                raise ValueError("its header was altered")
            if size != expected:
                raise ValueError(f"it has {size} bytes instead of {expected}")
            spectrum = stream.read(4 * places["spectrum"][1][0])
        rest = {name: value for name, value in metadata.items() if name != "check"}
        if metadata["format"] != FORMAT or metadata["check"] != _check(rest, spectrum):
            raise ValueError("its metadata or spectrum was altered")
        self._spectrum = np.frombuffer(spectrum, dtype=np.float32).copy()
        return metadata, places

    @cached_property
    def spectrum(self) -> Tensor:
        """S [k], all singular values, descending, float32 on the host."""
        import torch

        return torch.from_numpy(self._spectrum)

    def _array(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        at, shape = self._places[name]
        return np.frombuffer(self._map, dtype, int(np.prod(shape)), at).reshape(shape)

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in] of these ranks, float32, checked.

        The caller's own: what is written over the file later does not reach them. Raises
        DamagedFactorsError if one of these rows is not what was written, ValueError if the file
        does not hold them.
        """
        if stop > self.rank and stop > start:
            raise ValueError(f"{self.path} holds {self.rank} ranks, not {stop}")
        for _ in range(_LOOKS):
            self._look()
            left, right = self._left[start:stop].copy(), self._right[start:stop].copy()
            self._check(start, stop, left, right)
            if Trace.of(self.path) == self._trace:
                return _floats(left), _floats(right)
        raise DamagedFactorsError(f"{self.path} is damaged: it is being written over")

    def _look(self) -> None:
        """Forget which rows were checked if the file was written over since."""
        now = Trace.of(self.path)
        if now == self._trace:
            return
        before, self._trace = self._trace, now
        self._checked[:] = False
        if now is None or before is None or now.inode != before.inode:
            return  # another file has its name; what is mapped is the old one
        if now.size != before.size:  # there is no page beyond its end
            raise DamagedFactorsError(f"{self.path} is damaged: its size changed")

    def _check(self, start: int, stop: int, left: NDArray[Any], right: NDArray[Any]) -> None:
        """Check copies of the rows from `start` to `stop` that were not checked before."""
        missing = [i for i in range(start, stop) if not self._checked[i]]
        if missing:
            for name in ("digests", "U", "V"):
                self._announce(name, missing[0], missing[-1] + 1)
        for i in missing:
            stored = self._digests[i].tobytes()
            if _row(i, left[i - start]) + _row(i, right[i - start]) != stored:
                raise DamagedFactorsError(f"{self.path} is damaged: row {i} was altered")
            self._checked[i] = True

    def _announce(self, name: str, start: int, stop: int) -> None:
        """Have the system read these rows from disk, in large pieces."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        at, shape = self._places[name]
        row = shape[1] * (1 if name == "digests" else self._width)
        first = (at + start * row) // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, first, at + stop * row - first)


def _floats(rows: NDArray[Any]) -> Tensor:
    import torch

    values = torch.from_numpy(rows)
    return values if values.dtype == torch.float32 else values.view(torch.bfloat16).float()


def multiplied(kept: range, full: int) -> tuple[range, bool]:
    """The ranks whose product is computed for `kept` of `full`, and whether it is what goes.

    Of more than half of the ranks the others are fewer, and W less their product is the same.
    """
    if 2 * len(kept) > full and (kept.start == 0 or kept.stop == full):
        return (range(kept.stop, full) if kept.start == 0 else range(kept.start)), True
    return kept, False


class Rows(Protocol):
    """Where rows of factors come from: a file, or a copy of some of it."""

    shape: tuple[int, int]

    @property
    def spectrum(self) -> Tensor:
        """S [k], all singular values, descending, float32 on the host."""
        ...

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in], float32."""
        ...


class Factors:
    """The exact factors of one matrix: W = Uᵀ diag(S) V with U [k, out], V [k, in], rank-major.

    `spectrum` is S [k], descending, float32 on the host; `rank` says how many rows of `U` and `V`
    were asked for and checked; other rows are checked when first used.
    """

    def __init__(
        self, file: Rows, rank: int, on_damage: Callable[[DamagedFactorsError], None]
    ) -> None:
        self._file, self._on_damage = file, on_damage
        self.shape = file.shape
        self.spectrum = file.spectrum
        self.rank = rank
        self.U, self.V = self.ranks(0, rank)

    def ranks(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in] of these ranks, float32, checked."""
        try:
            return self._file.rows(start, stop)
        except DamagedFactorsError as error:
            self._on_damage(error)
            raise

    def product(
        self, rank: int, weight: Tensor | None = None, device: torch.device | None = None
    ) -> Tensor:
        """Best rank-`rank` approximation [out, in], float32 on `device` (Eckart-Young 1936).

        With the `weight` [out, in] itself at hand, ranks above half are W minus the tail, which
        multiplies less. Raises ValueError unless 0 <= rank <= min(out, in).
        """
        return self.span(0, rank, weight, device)

    def span(
        self,
        start: int,
        stop: int,
        weight: Tensor | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Σ σᵢ uᵢ vᵢᵀ over start <= i < stop, [out, in], float32 on `device`; see `product`."""
        full = len(self.spectrum)
        if not 0 <= start <= stop <= full:
            raise ValueError(f"ranks {start} to {stop} are outside [0, {full}]")
        rows, rest = multiplied(range(start, stop), full)
        if weight is not None and rest:
            import torch

            return weight.detach().to(device, torch.float32) - self._sum(
                rows.start, rows.stop, device
            )
        return self._sum(start, stop, device)

    def _sum(self, start: int, stop: int, device: torch.device | None) -> Tensor:
        U, V = self.ranks(start, stop)
        device = U.device if device is None else device
        S = self.spectrum[start:stop].to(device)
        # A fresh copy of V: matrix products may depend on how their operands are aligned.
        right = V.to(device, copy=True)
        return (U.to(device) * S[:, None]).T @ right
