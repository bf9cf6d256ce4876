"""Where things lie, said so that any process finds them: an absolute path or a URL."""

from __future__ import annotations

import os
from pathlib import Path


def absolute_location(location: str | os.PathLike[str], folder: Path | None = None) -> str:
    """`location` as an absolute path, or as it is where it is a URL.

    A relative one is relative to `folder`, by default the working folder: Ray's workers have
    another one. ``~`` is the user's home.
    """
    text = os.fspath(location)
    if "://" in text:
        return text
    path = Path(text).expanduser()
    return str(path if path.is_absolute() else ((folder or Path.cwd()) / path).resolve())


def local_or_id(name: str | os.PathLike[str], folder: Path | None = None) -> str:
    """`name` as an absolute path where it exists or can only be a path; else the id that it is."""
    text = os.fspath(name)
    is_path = not isinstance(name, str) or text.startswith(("./", "../", "~", "/"))
    place = absolute_location(text, folder)
    return place if is_path or Path(place).exists() else text
