"""Asking a driver to stop, from any machine that shares the study's folder."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from search.durable import write_json
from search.study.lock import find_driver
from search.study.study_record import StudyRecord

FILE = "stop.request"
POLL_S = 1.0


class StopRequest:
    """Lets a driver be stopped by a file in its folder: use it as a context manager.

    The request is passed on as the SIGTERM that `Preemption` answers, so that both end alike:
    what is in flight may finish, nothing new begins. A request to an earlier driver is void.
    """

    def __init__(self, folder: Path, token: str) -> None:
        """`token` of the driver's lease. Nothing is watched before the context is entered."""
        self._path = folder / FILE
        self._token = token
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="stop request")

    def __enter__(self) -> StopRequest:
        """Begin to watch."""
        if not is_asked(self._path.parent, self._token):
            self._path.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            if is_asked(self._path.parent, self._token):
                os.kill(os.getpid(), signal.SIGTERM)
                return


def is_asked(folder: Path, token: str) -> bool:
    """Whether the driver whose lease has this `token` was asked to stop."""
    try:
        return bool(json.loads((folder / FILE).read_text(encoding="utf-8"))["driver"] == token)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def was_asked(folder: Path) -> bool:
    """Whether a driver that has ended was asked to; the request is fulfilled with this answer."""
    try:
        (folder / FILE).unlink()
    except OSError:
        return False
    return True


def stop(folder: Path, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> str:
    """Ask the driver of a study to stop and wait for its end; returns a sentence on what became.

    Raises InputError if the folder holds no study.
    """
    holder = find_driver(folder)
    if holder is None:
        if StudyRecord.read(folder).is_over:
            return f"{folder} is not running; it is finished: laser-search status {folder}"
        return f"{folder} is not running; continue it with laser-search resume {folder}"
    write_json(folder / FILE, {"asked": time.time(), "driver": holder.token})
    for _ in range(round(wait_s / POLL_S)):
        sleep(POLL_S)
        if find_driver(folder) is None:
            return f"stopped; continue with laser-search resume {folder}"
    return f"asked the driver to stop ({holder.text}); it has not stopped within {wait_s:g} s"
