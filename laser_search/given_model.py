"""A model as a caller has it: a path, a hub id, or loaded with its tokenizer."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from search.locations import local_or_id
from search.study.identity import digest_checkpoint
from tasks.errors import InputError

Model: TypeAlias = "str | os.PathLike[str] | Any"
"""A local folder, a hub id, or a loaded transformers model."""

FOLDER = "model"


def model_path(model: Model, tokenizer: Any, folder: Path) -> str:
    """Where `model` can be read: its own path or id, or `folder`/model, where it is saved.

    All else identifies weights by the bytes of files, so a loaded model is written down first, in
    safetensors, with its tokenizer; it is left as it is. What was saved before is used again if it
    is the same. Raises InputError if it is another, or there is no tokenizer.
    """
    if isinstance(model, str | os.PathLike):
        if tokenizer is not None:
            raise InputError(f"model {model} has its own tokenizer; remove tokenizer=")
        return local_or_id(model)
    if not hasattr(model, "save_pretrained"):
        raise InputError(
            f"model is a {type(model).__name__}; give a path, a hub id or a transformers model"
        )
    if tokenizer is None:
        raise InputError("a loaded model also needs its tokenizer: tokenizer=...")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FOLDER
    partial = Path(tempfile.mkdtemp(prefix=".model-", dir=folder))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if not target.exists():
            partial.chmod(0o755)
            partial.rename(target)
        elif digest_checkpoint(target) != digest_checkpoint(partial):
            raise InputError(f"{target} contains a different model; choose another folder")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(target.absolute())
