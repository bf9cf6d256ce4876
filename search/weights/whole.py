"""Opening a safetensors file that a user gave: whole, or a sentence on what it is instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tasks.errors import InputError
from tasks.inside import inside

_POINTER = b"version https://git-lfs"


def open_weights(path: Path) -> safe_open:
    """The open file, whose header covers every byte of it. Raises InputError."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; download the checkpoint again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} {_state(path, error)}") from None


def _state(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(_POINTER))
        size = path.stat().st_size
    except OSError as refused:
        return f"cannot be read ({refused.strerror}); make it readable"
    if begin == _POINTER:
        return "is a git-lfs pointer, not the weights; run git lfs pull, or fetch them again"
    said = str(error).removeprefix("Error while deserializing header: ")
    return f"is damaged, no whole safetensors file ({said}; {size} bytes); download it again"


def check_weights(folder: Path, files: Mapping[str, str]) -> None:
    """Open every file of a checkpoint; `files`: name of each tensor -> its file in `folder`.

    Reads headers alone. Raises InputError if a file is missing, cut short or no file of tensors,
    or lacks a tensor that `files` says it has.
    """
    held = {}
    for name in dict.fromkeys(files.values()):
        with open_weights(inside(folder, name, str(folder), suffix=".safetensors")) as stream:
            held[name] = set(stream.keys())
    for tensor, name in files.items():
        if tensor not in held[name]:
            raise InputError(
                f"{folder / name} has no tensor {tensor}, although the checkpoint's index lists "
                "it; download it again"
            )
