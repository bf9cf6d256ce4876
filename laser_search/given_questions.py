"""Questions as a caller has them: a file, a list of dicts, a pandas frame, a datasets.Dataset."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from search.durable import write_text
from search.locations import local_or_id
from tasks.errors import InputError

Questions: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Any | None"
"""A file or hub id; rows, each a mapping; a pandas frame or a `datasets.Dataset`; or nothing."""

FILE = "questions.jsonl"


def questions_path(questions: Questions, folder: Path) -> str | None:
    """Where `questions` can be read: their own path or id, or `folder`/questions.jsonl.

    None if there are none: the task has its own. Rows that were written before are used again if
    they are the same. Raises InputError if they are others, or cannot be written.
    """
    if questions is None:
        return None
    if isinstance(questions, str | os.PathLike):
        return local_or_id(questions)
    lines = [_line(row, number) for number, row in enumerate(_rows(questions), 1)]
    if not lines:
        raise InputError("questions is empty; give a few hundred, each with a prompt and an answer")
    text = "".join(f"{line}\n" for line in lines)
    path = folder / FILE
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InputError(f"{path} contains different questions; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return str(path.absolute())


def _rows(questions: Any) -> Iterable[Any]:
    if hasattr(questions, "to_dict") and hasattr(questions, "columns"):  # pandas
        found: Iterable[Any] = questions.to_dict("records")
        return found
    if hasattr(questions, "to_list") and hasattr(questions, "features"):  # datasets
        return list(questions.to_list())
    if isinstance(questions, Mapping) or not isinstance(questions, Iterable):
        raise InputError(
            f"questions is a {type(questions).__name__}; give a list of dicts, a pandas frame, a "
            "datasets.Dataset (one split of it) or the path of a file"
        )
    return questions


def _line(row: Any, number: int) -> str:
    if not isinstance(row, Mapping):
        raise InputError(f"question {number} is a {type(row).__name__}, expected a dict")
    values = {str(name): _plain(value, f"question {number}, {name}") for name, value in row.items()}
    return json.dumps(values, ensure_ascii=False)


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON has it; what is missing, in any spelling, is None."""
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list | tuple):
        return [_plain(one, where) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one, where) for name, one in value.items()}
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise InputError(f"{where} is a {type(value).__name__}; expected text, a number or a list")
