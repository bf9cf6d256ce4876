"""Noticing that Ray is gone before Ray ends this process with a line of its own, after a minute."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

POLL_S = 0.5
PROBE_S = 5.0
LOST_S = 20.0
"""Silence of a cluster's server after which it counts as lost; Ray itself would wait 60 s."""

VITAL = ("gcs_server", "raylet")


class RayWatch:
    """Calls `lost` with a sentence when Ray is gone. Use it as a context manager.

    Of a Ray of our own the processes are looked at; of a cluster this machine's raylet, where it
    has one, and whether its `server` answers.
    """

    def __init__(
        self,
        lost: Callable[[str], None],
        roots: Sequence[psutil.Process] = (),
        server: tuple[str, int] | None = None,
    ) -> None:
        """`roots`: the processes of Ray on this machine without which this one cannot go on."""
        self._lost = lost
        self._vital = {name: process for process in roots if (name := _name(process)) in VITAL}
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="ray watch")

    def __enter__(self) -> RayWatch:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer."""
        self.close()

    def close(self) -> None:
        """Watch no longer: Ray is about to be ended."""
        self._ended.set()

    def _watch(self) -> None:
        answered = probed = time.monotonic()
        while not self._ended.wait(POLL_S):
            gone = [name for name, process in self._vital.items() if not _lives(process)]
            if gone and not self._ended.is_set():
                self._lost(f"a part of Ray on this machine ended ({gone[0]})")
                return
            now = time.monotonic()
            if self._server is None or now - probed < PROBE_S:
                continue
            probed = now
            if answers(self._server):
                answered = time.monotonic()
            elif time.monotonic() - answered > LOST_S and not self._ended.is_set():
                host, port = self._server
                self._lost(f"the Ray at {host}:{port} has not answered for {LOST_S:.0f} s")
                return


def raylet_of(socket_name: str) -> list[psutil.Process]:
    """The raylet of this machine that listens at a socket, as `ray.nodes()` names it; none or one.

    Ray ends a driver whose raylet is gone with lines of its own.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline() if process.name() == "raylet" else []
            if any(word.endswith(f"={socket_name}") for word in words):
                found.append(process)
    return found


def answers(server: tuple[str, int]) -> bool:
    """Whether somebody takes connections there."""
    with suppress(OSError):
        socket.create_connection(server, PROBE_S).close()
        return True
    return False


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
