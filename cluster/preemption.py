"""Signals to a driver, as schedulers send them before they take a machine away: end in time.

A driver holds Ray in its process, whose C++ code must not be left by an exception of a signal
handler. So nothing is raised: the search is told to drain, and elsewhere the main thread asks at
safe points. Where it comes to none in time, the process ends where it is; a study survives that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from search.interruption import PATIENCE_S, Ending, Interrupted, Interruption, say_and_exit

if TYPE_CHECKING:  # it brings torch, and signals may come before that is loaded
    from search.study.driven_study import DrivenStudy

RESUME_CODE = 75
"""Exit code that says: resume. EX_TEMPFAIL of sysexits.h, which schedulers requeue on."""

CUT_S = 10.0
"""How long Tune and Ray may take to end once trials need not be waited for."""


def code_of(number: int) -> int:
    """The exit code of a driver that a signal ended."""
    return 130 if number == signal.SIGINT else RESUME_CODE


def ending_of_start(number: int) -> tuple[int, str]:
    """Code and sentence where a driver was still being loaded."""
    return code_of(number), "interrupted; continue with: the same command"


def hold_alarms() -> None:
    """Let no SIGALRM reach this process or what it starts. Call it before there are threads.

    While Ray starts in it, for seconds of a busy machine, SIGTERM first meets a handler in C++ that
    prints a stack, sets an alarm of 3 s, and passes the signal on to us. The alarm would abort the
    process before it could end.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})


class Preemption(Interruption):
    """Makes signals end a driver gracefully: use it as a context manager, in the main thread.

    Before the search begins, `check` raises Interrupted. In the search nothing new is begun; after
    SIGTERM or SIGHUP what is in flight has `grace_s` seconds to finish, after Ctrl-C none, and what
    did not finish runs again on resume. Elsewhere than in the main thread signals are left alone.
    """

    raises = False

    def __init__(
        self,
        grace_s: float = 0.0,
        ending: Ending | None = None,
        tidy: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`ending` is asked for an end without return; 0 means that Ray is lost.

        `tidy` does before it what cannot be left to the next start, and is told the reason. Who
        starts processes for the driver sets `kill_helpers`.
        """
        super().__init__(ending)
        self._grace_s = grace_s
        self._tidy = tidy
        self._study: DrivenStudy | None = None
        self._lock = threading.Lock()
        self.is_cut = False
        self.kill_helpers: Callable[[], None] = lambda: None

    def check(self) -> None:
        """A safe point: raises Interrupted if the driver was asked to end."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def search(self, study: DrivenStudy) -> None:
        """The search begins: from now on trials are in flight. Raises Interrupted."""
        with self._lock:
            self.check()
            self._study = study

    def leave(self) -> None:
        """The search is over."""
        with self._lock:
            self._study = None

    def heard(self, number: int) -> None:
        """Let the search drain; elsewhere wait for a safe point."""
        with self._lock:
            self.asked = number
            study = self._study
            if study is not None:
                study.draining = True
        if study is None:
            self.after(PATIENCE_S, lambda: self.end_now(number))
            return
        grace_s = 0.0 if number == signal.SIGINT else self._grace_s
        self.after(grace_s, self._cut)
        self.after(grace_s + CUT_S, lambda: self.end_now(number))

    def _cut(self) -> None:
        self.is_cut = True

    def end_now(self, number: int) -> None:
        """End the process where it is, with the sentence and the code of an orderly end."""
        self._tidy("it was asked to stop")
        self.kill_helpers()
        super().end_now(number)

    def lost(self, reason: str) -> None:
        """Ray is gone, and with it everything in flight: end before it ends this process itself."""
        self._tidy(reason)
        self.kill_helpers()
        _, remedy = self._ending(0)
        say_and_exit(1, f"stopped: {reason}\n{remedy}")
