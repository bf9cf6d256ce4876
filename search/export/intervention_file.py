"""Interventions that are named by a file: a list, a recipe, an export, a study's result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.cuts.composition import Composition
from search.plain_yaml import read_yaml
from search.study.verdict import read_result
from tasks.errors import InputError

RESULT = "result.json"
_NAMES = (RESULT, "interventions.json", "recipe.json")
"""What a folder is asked for, in this order."""

_SUFFIXES = (".json", ".yaml", ".yml")
_MOST_BYTES = 2**24


def spelled_out(texts: Sequence[str]) -> list[str]:
    """`texts` with each file or folder among them replaced by the interventions that it holds.

    A file is JSON or YAML: a list of texts such as ``27.fc_in=0.01``; a mapping such as
    ``{27.fc_in: 0.01}``; a recipe, an export's interventions.json or a study's result.json. A
    folder is a study, an export or a recipe. Raises InputError if there is no such file, or no
    intervention in it.
    """
    found: list[str] = []
    for text in texts:
        path = Path(text).expanduser()
        if path.exists() or ("=" not in text and path.suffix in _SUFFIXES):
            found += _interventions(path)
        else:
            found.append(text)
    return found


def _interventions(path: Path) -> list[str]:
    file = path
    if path.is_dir():
        file = next((path / name for name in _NAMES if (path / name).is_file()), path)
    if not file.is_file():
        what = "holds none of " + ", ".join(_NAMES) if path.is_dir() else "does not exist"
        raise InputError(
            f"{path} {what}; give MATRIX=RHO such as '1.fc_in=0.1', or a file of interventions"
        )
    found = _texts(_read(file), file)
    if not found:
        raise InputError(f"{file} contains no intervention; give another file, or MATRIX=RHO")
    return found


def _read(file: Path) -> Any:
    """What the file says, as plain data."""
    if file.name == RESULT:
        return read_result(file.parent)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(f"{file} is too large for a list of interventions; give another file")
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix == ".json" else read_yaml(text, str(file))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        said = getattr(error, "strerror", None) or error
        raise InputError(
            f"{file} cannot be read as JSON or YAML ({said}); fix or replace it"
        ) from None


def _texts(data: Any, file: Path) -> list[str]:
    """The interventions in plain data, as texts."""
    if isinstance(data, dict) and "composition" in data:
        data = data["composition"]
    if isinstance(data, dict) and "schema" in data and _is_flat(data.get("interventions")):
        return [str(one) for one in Composition.from_dict(data).interventions]
    if isinstance(data, dict) and isinstance(data.get("interventions"), list):
        data = data["interventions"]
    if isinstance(data, str):
        data = [] if data == str(Composition()) else data.split()
    if isinstance(data, dict):
        data = (
            [
                f"{name}={level}"
                for name, level in data.items()
                if isinstance(name, str) and isinstance(level, str | int | float)
            ]
            if _is_flat([data])
            else None
        )
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise InputError(
            f"{file} does not contain a list of interventions; expected texts such as "
            "'1.fc_in=0.1', a recipe, an export's interventions.json or a study's result.json"
        )
    return data


def _is_flat(rows: Any) -> bool:
    """Whether this is a list of mappings from texts to texts and numbers."""
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(isinstance(k, str) and isinstance(v, str | int | float) for k, v in row.items())
        for row in rows
    )
