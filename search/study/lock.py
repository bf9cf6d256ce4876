"""One driver per study folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import InputError


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Hold the study folder; the kernel lets go when the process ends, however it ends.

    Raises InputError if another driver holds it, with its host, process and age.
    """
    path = folder / "driver.lock"
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise InputError(
                f"{folder} is being driven by another process ({_holder(stream.read())}); "
                "wait for it or stop it first"
            ) from None
        stream.truncate(0)
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        stream.write(json.dumps(facts))
        stream.flush()
        yield


def _holder(text: str) -> str:
    try:
        facts = json.loads(text)
        age_s = time.time() - facts["since"]
        return f"host {facts['host']}, pid {facts['pid']}, for {age_s:.0f} s"
    except (ValueError, KeyError, TypeError):
        return "just starting"
