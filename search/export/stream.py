"""A safetensors checkpoint rewritten file by file: what is not changed is copied byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from search.durable import write_json
from tasks.errors import InputError
from tasks.inside import inside

INDEX = "model.safetensors.index.json"
_CHUNK_BYTES = 2**24
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class WeightChange:
    """What takes the place of one stored tensor.

    `shapes`: names of the new tensors and their shapes, known before anything is computed. `make`
    turns the stored tensor (its own dtype, on the CPU, free to be changed) into them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    make: Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: dtype as safetensors names it, and where its bytes are in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def floating(self) -> torch.dtype | None:
        """The dtype, if it is a floating-point one that can be cast."""
        return _DTYPES.get(self.dtype)


@dataclass
class Rewritten:
    """Digests by tensor name: `base` of every tensor read, `changed` of the new ones."""

    base: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)


def read_header(path: Path) -> tuple[dict[str, str], list[Stored]]:
    """Metadata and tensors of a safetensors file, in the order of their bytes.

    Raises InputError if the file is torn.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        found = [
            Stored(
                name,
                entry["dtype"],
                tuple(entry["shape"]),
                8 + length + entry["data_offsets"][0],
                8 + length + entry["data_offsets"][1],
            )
            for name, entry in header.items()
        ]
        if any(tensor.stop > size for tensor in found):
            raise ValueError(f"it ends after {size} bytes")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise InputError(f"{path} cannot be read ({error!r}); download it again") from None
    return metadata, sorted(found, key=lambda tensor: (tensor.start, tensor.stop))


def shard_names(files: Mapping[str, str]) -> list[str]:
    """The weight files of a checkpoint, given its tensors' names and files, once each."""
    return list(dict.fromkeys(files.values()))


def tensor_digests(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """A digest of each tensor's dtype, shape and bytes; memory of one chunk."""
    found: dict[str, str] = {}
    for shard in shard_names(files):
        _, tensors = read_header(folder / shard)
        with (folder / shard).open("rb") as stream:
            for tensor in tensors:
                digest = _begin(tensor.dtype, tensor.shape)
                for piece in _pieces(stream, tensor):
                    digest.update(piece)
                found[tensor.name] = digest.hexdigest()
    return found


def read_tensor(path: Path, name: str) -> Tensor:
    """A floating-point tensor of a file, private to the caller, in its stored shape and dtype.

    On the host. Raises InputError.
    """
    stored = next((t for t in read_header(path)[1] if t.name == name), None)
    if stored is None or stored.floating is None:
        raise InputError(f"{path} has no floating-point tensor {name}; download it again")
    with path.open("rb") as stream:
        return _tensor(bytearray().join(_pieces(stream, stored)), stored)


def digest_of(tensor: Tensor) -> str:
    """The digest that `tensor_digests` gives a stored tensor of this value, shape and dtype."""
    digest = _begin(_NAMES[tensor.dtype], tensor.shape)
    digest.update(raw_bytes(tensor, tuple(tensor.shape)))
    return str(digest.hexdigest())


def combined(digests: Mapping[str, str]) -> str:
    """One digest over those of all tensors, whatever files they lie in."""
    lines = "\n".join(f"{name}={digest}" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def rewrite(
    folder: Path,
    files: Mapping[str, str],
    out: Path,
    changes: Mapping[str, WeightChange],
    dtype: torch.dtype | None = None,
) -> Rewritten:
    """Write the checkpoint in `folder` to `out` with `changes` by tensor name, file by file.

    `files`: name of each tensor -> its file. Files, order, metadata and the bytes of all other
    tensors stay; with `dtype`, floating-point tensors are cast to it. Memory: the largest tensor
    that is changed or cast, a few times. Not atomic by itself. Raises InputError, OSError.
    """
    done = Rewritten()
    places: dict[str, str] = {}
    total = 0
    for shard in shard_names(files):
        metadata, tensors = read_header(folder / shard)
        plans = [_plan(tensor, changes.get(tensor.name), dtype) for tensor in tensors]
        header, size = _header(metadata, [entry for plan in plans for entry in plan])
        total += size
        places |= {name: shard for plan in plans for name, _, _ in plan}
        written = inside(out, shard, str(folder), suffix=".safetensors")
        written.parent.mkdir(parents=True, exist_ok=True)
        with (folder / shard).open("rb") as source, written.open("xb") as target:  # no link is met
            target.write(header)
            for tensor, plan in zip(tensors, plans, strict=True):
                _write(source, target, tensor, changes.get(tensor.name), plan, done)
            target.flush()
            os.fsync(target.fileno())
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        index["weight_map"] = places if changes or dtype else index["weight_map"]
        index.setdefault("metadata", {})["total_size"] = total
        write_json(out / INDEX, index)
    return done


def size_bytes(
    folder: Path,
    files: Mapping[str, str],
    changes: Mapping[str, WeightChange],
    dtype: torch.dtype | None = None,
) -> int:
    """Bytes that `rewrite` will write, without the headers."""
    total = 0
    for shard in shard_names(files):
        for tensor in read_header(folder / shard)[1]:
            for _, kind, shape in _plan(tensor, changes.get(tensor.name), dtype):
                total += _bytes(kind, shape, tensor)
    return total


_Entry = tuple[str, str, tuple[int, ...]]


def _plan(tensor: Stored, change: WeightChange | None, dtype: torch.dtype | None) -> list[_Entry]:
    """(name, dtype, shape) of what is written for a stored tensor."""
    kind = tensor.dtype
    if dtype is not None and tensor.floating is not None:
        kind = _NAMES[dtype]
    if change is None:
        return [(tensor.name, kind, tensor.shape)]
    return [(name, kind, shape) for name, shape in change.shapes.items()]


def _bytes(kind: str, shape: tuple[int, ...], tensor: Stored) -> int:
    if kind not in _DTYPES:
        return tensor.stop - tensor.start
    return torch.Size(shape).numel() * _DTYPES[kind].itemsize


def _header(metadata: Mapping[str, str], entries: Sequence[_Entry]) -> tuple[bytes, int]:
    """The header of a file with `entries`, and the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, kind, shape in entries:
        stop = start + torch.Size(shape).numel() * _width(kind)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, start


def _width(kind: str) -> int:
    """Bytes of an entry of a safetensors dtype: the digits of its name, in bits."""
    digits = "".join(c for c in kind.partition("_")[0] if c.isdigit())
    return 1 if kind == "BOOL" else int(digits) // 8


def _write(
    source: BinaryIO,
    target: BinaryIO,
    tensor: Stored,
    change: WeightChange | None,
    plan: list[_Entry],
    done: Rewritten,
) -> None:
    digest = _begin(tensor.dtype, tensor.shape)
    copies = change is None and plan[0][1] == tensor.dtype
    held = bytearray()
    for piece in _pieces(source, tensor):
        digest.update(piece)
        if copies:
            target.write(piece)
        else:
            held += piece
    done.base[tensor.name] = digest.hexdigest()
    if copies:
        return
    value = _tensor(held, tensor)
    made = {tensor.name: value} if change is None else change.make(value)
    for name, kind, shape in plan:
        data = raw_bytes(made[name].to(_DTYPES.get(kind, made[name].dtype)), shape)
        digest = _begin(kind, shape)
        digest.update(data)
        if change is not None:
            done.changed[name] = digest.hexdigest()
        target.write(data)


def raw_bytes(tensor: Tensor, shape: tuple[int, ...]) -> memoryview:
    """The bytes of a tensor as safetensors stores it, any dtype and device; unchanged.

    Raises ValueError if its shape is not `shape`.
    """
    if tuple(tensor.shape) != shape:
        raise ValueError(f"shape {tuple(tensor.shape)} is not {shape}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)


def _tensor(data: bytearray, tensor: Stored) -> Tensor:
    if not data:
        return torch.empty(tensor.shape, dtype=_DTYPES[tensor.dtype])
    return torch.frombuffer(data, dtype=_DTYPES[tensor.dtype]).view(tensor.shape)


def _pieces(stream: BinaryIO, tensor: Stored) -> Iterator[bytes]:
    stream.seek(tensor.start)
    left = tensor.stop - tensor.start
    while left:
        piece = stream.read(min(left, _CHUNK_BYTES))
        if not piece:
            raise InputError(
                f"{tensor.name} ends before its last byte; download the checkpoint again"
            )
        left -= len(piece)
        yield piece


def _begin(kind: str, shape: Sequence[int]) -> Any:
    return hashlib.blake2b(f"{kind}:{list(shape)}\0".encode(), digest_size=20)
