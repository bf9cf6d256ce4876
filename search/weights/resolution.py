"""Which files of a folder are its weights: one rule for all that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.weights.whole import open_weights
from tasks.errors import InputError
from tasks.foreign import words_of
from tasks.inside import inside

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_NAMED = "transformers_weights"
"""Key of config.json that names the file, or the index, to load."""


def weight_files(folder: Path) -> dict[str, str]:
    """Name of each tensor of a checkpoint -> name of its safetensors file in `folder`.

    The rule is that of transformers 5: the file that config.json names, else model.safetensors,
    else the index. Where both of the last two are there and mean different files, what would be
    read is not what whoever saved last may think, so that is refused. Raises InputError too if
    there are no weights in safetensors, or they cannot be read.
    """
    named = _named(folder)
    if named is not None:
        return _indexed(folder / named) if named.endswith(".json") else _held(folder / named)
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        if index.is_file():
            _check_same(folder, index)
        return _held(single)
    if index.is_file():
        return _indexed(index)
    if list(folder.glob("pytorch_model*.bin")):
        raise InputError(
            f"{folder} has pickled weights only (pytorch_model.bin), which can run code; "
            "convert them by loading the model and calling "
            "save_pretrained(folder, safe_serialization=True)"
        )
    raise InputError(f"{folder} has no {SINGLE}; expected a folder written by save_pretrained")


def _named(folder: Path) -> str | None:
    """The file of weights that config.json names, None where it names none."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # a folder of weights alone; a model's configuration is read elsewhere
    name = config.get(_NAMED) if isinstance(config, dict) else None
    if name is None:
        return None
    plain = isinstance(name, str) and name == Path(name).name
    if not plain or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise InputError(
            f"{folder / 'config.json'}: {_NAMED} is {name!r}, expected a safetensors file or index "
            "in that folder"
        )
    return str(name)


def _check_same(folder: Path, index: Path) -> None:
    """Raises InputError unless an index beside the single file means just that file."""
    others = sorted(set(_indexed(index).values()) - {SINGLE})
    if not others:
        return
    there = [name for name in others if (folder / name).is_file()]
    shards = f"{others[0]} to {others[-1]}" if len(others) > 1 else others[0]
    gone = "" if there else ", none of which exists"
    remedy = f"{SINGLE}, or {INDEX} and its shards, whichever is not meant" if there else INDEX
    raise InputError(
        f"{folder} contains two checkpoints: {SINGLE}, and {INDEX} of {shards}{gone}; remove "
        f"{remedy}"
    )


def _indexed(index: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(found, dict) or not found:
            raise TypeError("weight_map is not a mapping of names")
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{index} cannot be read ({words_of(error)}); download it again") from None
    for name in {repr(name): name for name in found.values()}.values():
        inside(index.parent, name, str(index), suffix=".safetensors")
    return found


def _held(path: Path) -> dict[str, str]:
    with open_weights(path) as stream:
        return dict.fromkeys(stream.keys(), path.name)
