"""How a study's drivers ended: one line for each begin and end, for whoever looks later."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from tasks.secrets import hide_secrets

FILE = "logs/driver.jsonl"


def note_begin(folder: Path) -> None:
    """A driver begins."""
    _note(folder, {"event": "begin"})


def note_end(folder: Path, reason: str) -> None:
    """A driver ends; `reason` is why it did not come to its end, empty if it did."""
    _note(folder, {"event": "end", "reason": hide_secrets(reason)})


def _note(folder: Path, facts: dict[str, str]) -> None:
    line = {"time": round(time.time(), 3), **facts, "host": socket.gethostname()}
    path = folder / FILE
    with suppress(OSError):  # a full disk may be the very reason
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**line, "pid": os.getpid()}) + "\n")


def last_begin_s(folder: Path) -> float:
    """When the last driver began, in seconds since 1970; 0 if none is known to have."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return max((float(one["time"]) for one in found if one["event"] == "begin"), default=0.0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0.0


def last_end(folder: Path) -> str:
    """Why the last driver did not come to its end, empty if it did or none is known to have begun.

    Meant for when no driver runs: one that began and said nothing was killed, or had no room to.
    """
    try:
        last = json.loads((folder / FILE).read_text(encoding="utf-8").splitlines()[-1])
        if last["event"] == "begin":
            return f"it ended without a word (host {last['host']}, pid {last['pid']})"
        return hide_secrets(str(last["reason"]))
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return ""
