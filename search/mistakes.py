"""What is wrong with a file, in sentences: pydantic's errors as a person would say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks.errors import nearest

_LONGEST = 200
"""Characters of a value that are shown."""


def mistakes(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """A sentence for each place of a file that does not fit `root`, each once.

    It names the key, the value, what was expected, the nearest name.
    """
    return list(dict.fromkeys(_sentence(group, root) for group in _by_place(error)))


def _by_place(error: ValidationError) -> list[list[ErrorDetails]]:
    """What is wrong, by place: a value that fits no branch of a union has one error for each.

    Errors inside one branch say that the others were not meant.
    """
    found = error.errors()
    inside = {
        tuple(_path(e)[:depth])
        for e in found
        if not _is_other_branch(e["loc"], e["type"])
        for depth in range(len(_path(e)))
    }
    places: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for e in found:
        if not (_is_other_branch(e["loc"], e["type"]) and tuple(_path(e)) in inside):
            places.setdefault(tuple(_path(e)), []).append(e)
    return list(places.values())


def _sentence(found: Sequence[ErrorDetails], root: type[BaseModel]) -> str:
    """What is wrong at one place, as one sentence."""
    first = next((e for e in found if not _is_other_branch(e["loc"], e["type"])), found[0])
    path = _path(first)
    key = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1], root)
        hint = nearest(str(path[-1]), known)
        return f"key {key!r} is unknown; expected one of {', '.join(known)}{hint}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    value = first["input"]
    message = first["msg"].removeprefix("Value error, ")
    if _is_other_branch(first["loc"], first["type"]):
        alternatives = [e["msg"].removeprefix("Input should be ") for e in found]
        message = f"input should be {' or '.join(dict.fromkeys(alternatives))}"
    if first["type"] == "literal_error" and isinstance(value, str):
        expected = first["ctx"]["expected"]
        message += nearest(
            value, [name.strip(" '") for name in expected.replace(" or ", ",").split(",")]
        )
    if isinstance(value, dict):
        return f"{key}: {message}" if key else message
    return f"{key} is {_quoted(value)}: {message[:1].lower()}{message[1:]}"


def _quoted(value: Any) -> str:
    """A value as it was read, its beginning if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _path(error: ErrorDetails) -> list[int | str]:
    """Where an error is, in the user's words."""
    return [part for part in error["loc"] if not _is_branch(part)]


def _is_other_branch(path: tuple[int | str, ...], kind: str) -> bool:
    """Whether an error only says that a value is not of one branch of a union."""
    return (
        bool(path) and _is_branch(path[-1]) and (kind.endswith("_type") or kind == "literal_error")
    )


def _is_branch(part: int | str) -> bool:
    """Whether a location names a branch of a union, which the user never wrote."""
    return isinstance(part, str) and (
        "[" in part or part in {"int", "str", "float", "RhoRange", "literal['all']"}
    )


def _keys_at(path: list[int | str], root: type[BaseModel]) -> list[str]:
    model = root
    for part in path:
        if isinstance(part, str):  # a number is a place in a list
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, alone or as one of its parts."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)
