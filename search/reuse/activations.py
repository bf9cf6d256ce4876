"""Where activations of block boundaries are kept: on the device, in host memory, in a file."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

log = logging.getLogger(__name__)

GIB = 2**30
PLACES = ("device", "host", "file")


@dataclass(frozen=True)
class Room:
    """Bytes that activations may take.

    `device_bytes`: on the model's own device, which is host memory for a model on CPUs.
    `host_bytes`: pinned host memory, for a model on a GPU. `file_bytes`: in files of
    `scratch`, which all processes on the node share that name it alike.
    """

    device_bytes: int = 2 * GIB
    host_bytes: int = 0
    file_bytes: int = 0
    scratch: SharedScratch | None = None

    @property
    def folder(self) -> Path | None:
        """Where files go."""
        return self.scratch.path if self.scratch else None

    @property
    def total_bytes(self) -> int:
        """In all."""
        return self.device_bytes + self.host_bytes + self.file_bytes

    def close(self) -> None:
        """Stop using the folder of files, if there is one."""
        if self.scratch is not None:
            self.scratch.close()


@dataclass
class Activations:
    """Tensors of one model by batch and boundary, filled place by place until `room` is used up.

    What is handed out is always a fresh copy on the tensor's own device, so that a block which
    works in place cannot change what is kept. Not thread-safe.
    """

    room: Room
    promised: int = 0
    """Bytes that those who share it have planned to keep."""
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    _tensors: dict[tuple[str, int], Tensor | _Mapped] = field(default_factory=dict)

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody has planned to use."""
        return max(0, self.room.total_bytes - self.promised)

    def keep(self, batch: str, index: int, tensor: Tensor) -> None:
        """Keep a copy of a batch's tensor, any shape and dtype, in the first place with room."""
        size = tensor.numel() * tensor.element_size()
        if self.held["device"] + size <= self.room.device_bytes:
            self._tensors[batch, index] = tensor.clone()
            self.held["device"] += size
        elif tensor.is_cuda and self.held["host"] + size <= self.room.host_bytes:
            self._tensors[batch, index] = tensor.to("cpu").pin_memory()
            self.held["host"] += size
        elif self.room.folder is not None:
            self._tensors[batch, index] = self._to_file(batch, index, tensor)
        else:  # the boundaries were chosen for less than this batch needs
            self._tensors[batch, index] = tensor.clone()
            self.held["device"] += size

    def fits(self, size: int, is_cuda: bool = False) -> bool:
        """Whether as many bytes more have room in one place; `is_cuda`: of a model on a GPU."""
        room, held = self.room, self.held
        return (
            held["device"] + size <= room.device_bytes
            or (is_cuda and held["host"] + size <= room.host_bytes)
            or (room.folder is not None and held["file"] + size <= room.file_bytes)
        )

    def adopt(self, batch: str, indices: Iterable[int]) -> bool:
        """Take the files that another process wrote, if it wrote all of them; else nothing."""
        folder = self.room.folder
        if folder is None:
            return False
        paths = {index: _file(folder, batch, index) for index in indices}
        if not all(path.exists() for path in paths.values()):
            return False
        self._tensors |= {(batch, index): _Mapped(path) for index, path in paths.items()}
        return True

    def known(self, batch: str, index: int) -> bool:
        """Whether the tensor is kept."""
        return (batch, index) in self._tensors

    def load(self, batch: str, index: int, device: torch.device) -> Tensor:
        """A fresh copy on `device`, of the shape and dtype that were kept."""
        held = self._tensors[batch, index]
        tensor = held.read() if isinstance(held, _Mapped) else held
        if tensor.device == device:
            return tensor.clone()
        return tensor.to(device, non_blocking=True)

    def drop(self, batches: Iterable[str]) -> None:
        """Forget what is kept of these batches; their files go too, for everybody."""
        gone = set(batches)
        for key in [key for key in self._tensors if key[0] in gone]:
            tensor = self._tensors.pop(key)
            if isinstance(tensor, _Mapped):
                self.held["file"] -= tensor.size
                with suppress(OSError):
                    tensor.path.unlink(missing_ok=True)
            else:
                place = "host" if tensor.is_pinned() else "device"
                self.held[place] -= tensor.numel() * tensor.element_size()

    def _to_file(self, batch: str, index: int, tensor: Tensor) -> _Mapped:
        folder = self.room.folder
        if folder is None:
            raise AssertionError("a file needs a folder")
        path = _file(folder, batch, index)
        size = tensor.numel() * tensor.element_size()
        self.held["file"] += size
        if not path.exists():
            # Another process may write the same bytes at the same time; one rename wins. Not
            # flushed to disk: the folder does not outlive the processes that use it.
            handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
            with os.fdopen(handle, "wb") as stream:
                stream.write(save({"x": tensor.detach().cpu().contiguous()}))
            Path(temporary).replace(path)
        return _Mapped(path, size)


def _file(folder: Path, batch: str, index: int) -> Path:
    return folder / f"{batch}-{index}.safetensors"


@dataclass(frozen=True)
class _Mapped:
    """A file; `size` in bytes if this process put it there, of another one's 0."""

    path: Path
    size: int = 0

    def read(self) -> Tensor:
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor("x")
        return tensor


class SharedScratch:
    """A folder on this node that goes when the last process that uses it ends.

    Every user holds a shared lock on it; folders whose lock is free belong to nobody and are
    removed by the next one that starts, however their processes ended.
    """

    def __init__(self, name: str, parent: str | None = None) -> None:
        """Use the folder `name` under `parent` (default: the system's temporary folder)."""
        base = Path(parent or tempfile.gettempdir()) / f"laser-search-{os.getuid()}"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise PermissionError(f"{base} belongs to another user")
        self.path = base / name
        self._locks = base
        self._sweep()
        self.path.mkdir(exist_ok=True)
        self._lock: Any = self._open(name)
        _lock(self._lock, exclusive=False)

    def close(self) -> None:
        """Stop using it, and remove it if nobody else does."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            self._sweep()

    def _open(self, name: str) -> Any:
        return (self._locks / f"{name}.lock").open("a")

    def _sweep(self) -> None:
        for folder in self._locks.iterdir():
            if not folder.is_dir():
                continue
            with self._open(folder.name) as lock:
                if _lock(lock, exclusive=True):
                    shutil.rmtree(folder, ignore_errors=True)
                    (self._locks / f"{folder.name}.lock").unlink(missing_ok=True)


def _lock(stream: Any, *, exclusive: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(stream, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
