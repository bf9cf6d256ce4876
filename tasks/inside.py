"""Names that came from outside, as places in a folder that they cannot leave.

A checkpoint, a patch, a study or a cache may come from a stranger, and its names end in paths that
are read and written. Every such name goes through here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tasks.errors import InputError

_DRIVE = re.compile(r"[A-Za-z]:")


def inside(folder: Path, name: object, where: str, *, suffix: str = "") -> Path:
    """The file `name` of `folder`, or of a folder in it; `where` says whose name it is.

    The file itself may be a symbolic link, as those in the hub's cache are; a folder on the way to
    it that leads out may not. Raises InputError on what is no plain relative name, on either
    system's separators and drives, and on a name that does not end in `suffix`.
    """
    wrong = _wrong(name, suffix)
    path = folder / str(name) if not wrong else folder
    if not wrong and not _within(path.parent, folder):
        wrong = "is behind a symbolic link that leads out of the folder"
    if wrong:
        raise InputError(
            f"{where} names the file {name!r}, which {wrong}; laser-search does not read or write "
            f"such files: get {where} from its source again"
        )
    return path


def _wrong(name: object, suffix: str) -> str:
    """What is wrong with a name by itself."""
    if not isinstance(name, str) or not name:
        return "is not text"
    if any(ord(letter) < 32 or letter == "\x7f" for letter in name):
        return "contains a control character"
    if "\\" in name or _DRIVE.match(name) or name.startswith("/"):
        return "is not a relative name"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leaves its folder or means it"
    return "" if name.endswith(suffix) else f"does not end in {suffix}"


def check_links(folder: Path) -> None:
    """Refuse a folder that is about to be written while a symbolic link leads out of it.

    Raises InputError: an appended line or a new file would land where the link says.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not _within(path, folder):
                raise InputError(
                    f"{path} is a symbolic link that leads out of {folder}, where it would be "
                    f"written; put a real file or folder in its place"
                )


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
