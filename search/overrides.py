"""``--set search.trials=50``: values of study.yaml given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tasks.errors import InputError


def apply_overrides(data: dict[str, Any], texts: Sequence[str]) -> None:
    """Set each ``KEY=VALUE`` in `data`, which is changed in place; later ones win.

    KEY is a path of names joined by dots, such as ``search.trials``, or with a position in a list,
    such as ``tasks.0.weight``. VALUE is YAML. What the result means is checked by whoever parses
    `data`. Raises InputError for a text of another form, or a path through something that has no
    keys.
    """
    for text in texts:
        key, found, value = text.partition("=")
        path = key.strip().split(".")
        if not found or not all(path):
            raise InputError(
                f"--set {text!r} is not of the form KEY=VALUE, such as search.trials=50"
            )
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"--set {text!r}: the value is not valid YAML: {reason}") from None
        _put(data, path, parsed, text)


def _put(data: Any, path: Sequence[str], value: Any, text: str) -> None:
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        where = ".".join(path[:depth]) or "the file"
        if isinstance(data, list):
            if not name.isdigit() or int(name) >= len(data):
                raise InputError(
                    f"--set {text!r}: {where} is a list of {len(data)}; give a position from 0"
                )
            key: Any = int(name)
        elif isinstance(data, dict):
            key = name
            if not last and data.get(name) is None:
                data[name] = {}
        else:
            raise InputError(f"--set {text!r}: {where} is {data!r} and has no keys")
        if last:
            data[key] = value
        else:
            data = data[key]
