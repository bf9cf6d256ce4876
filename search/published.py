"""What a page that may be published calls the files of the machine that made it: names, no paths.

A path says who worked where, and nobody else can use it. Digests say which bytes were meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tasks.datasets import SUFFIXES

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_RUN = re.compile(r".*/checkpoint-\d+")
"""Where a trainer leaves its checkpoints: looks like an id of the hub and is a local folder."""

_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/[^/]+")
"""Where the hub's library keeps what it has downloaded."""


def model_name(path: str) -> str:
    """The id on the hub where the model has one, else the name of its folder."""
    return hub_name(path) or Path(path).expanduser().resolve().name or "model"


def hub_name(path: str) -> str | None:
    """The id on the hub of the model at `path`, a folder or an id; None if it has none.

    A folder has that of the cache it lies in, or the one that its configuration says it was
    loaded as, which is then what its weights come from.
    """
    local = Path(path).expanduser()
    if not (_is_local(path) or local.is_dir()):
        return path
    cached = _SNAPSHOT.search(f"{local.resolve()}")
    if cached is not None:
        return f"{cached[1]}/{cached[2]}"
    try:
        config = json.loads((local / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    said = config.get("_name_or_path") if isinstance(config, dict) else None
    is_id = isinstance(said, str) and _HUB_ID.fullmatch(said) and not _RUN.fullmatch(said)
    return str(said) if is_id else None


def data_name(source: str | None) -> str | None:
    """A data set's id, the name of a file, a URL as it is."""
    if source is None or "://" in source:
        return source
    is_file = Path(source).suffix.lower() in SUFFIXES and ":" not in source
    return Path(source).name if is_file or _is_local(source) else source


def without_paths(text: str, paths: Iterable[str]) -> str:
    """`text` with each of `paths` replaced by its last part, the longest first."""
    for path in sorted(set(paths), key=len, reverse=True):
        if Path(path).name:
            whole = rf"(?<![\w.-]){re.escape(path)}(?![\w-]|\.\w)"
            text = re.sub(whole, lambda _, name=Path(path).name: name, text)  # type: ignore[misc]
    return text


def _is_local(path: str) -> bool:
    return path.startswith((".", "/", "~"))
