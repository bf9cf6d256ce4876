"""SIGTERM, as schedulers send it before they take a machine away: end in time, to be resumed."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from search.study.study import Study

RESUME_CODE = 75
"""Exit code that says: resume. EX_TEMPFAIL of sysexits.h, which schedulers requeue on."""


class Preempted(Exception):  # noqa: N818 - says what happened
    """SIGTERM came while no trial was in flight."""


class Preemption:
    """Makes SIGTERM end a driver gracefully: use it as a context manager, in the main thread.

    Before the search begins, SIGTERM raises Preempted. In the search nothing new is begun; what is
    in flight has `grace_s` seconds to finish, and runs again on resume if it does not. Elsewhere
    than in the main thread SIGTERM is left alone.
    """

    def __init__(self, grace_s: float) -> None:
        """Signals are left alone before the context is entered."""
        self._grace_s = grace_s
        self._study: Study | None = None
        self._cut: threading.Timer | None = None
        self._is_main = threading.current_thread() is threading.main_thread()
        self.asked = False

    def __enter__(self) -> Preemption:
        """Take SIGTERM."""
        self._before = signal.getsignal(signal.SIGTERM)
        self.insist()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave SIGTERM as it was."""
        self.leave()
        if self._is_main:
            signal.signal(signal.SIGTERM, self._before)

    def insist(self) -> None:
        """Take SIGTERM again, after Ray took it for itself."""
        if self._is_main:
            signal.signal(signal.SIGTERM, self._ask)

    def search(self, study: Study) -> None:
        """The search begins: from now on trials are in flight."""
        self._study = study

    def leave(self) -> None:
        """The search is over."""
        self._study = None
        if self._cut is not None:
            self._cut.cancel()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            return
        self.asked = True
        if self._study is None:
            raise Preempted
        self._study.draining = True
        # Tune's own signal for the end of a run that may not wait for its trials.
        self._cut = threading.Timer(self._grace_s, os.kill, (os.getpid(), signal.SIGUSR1))
        self._cut.daemon = True
        self._cut.start()
