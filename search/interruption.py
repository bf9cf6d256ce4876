"""SIGTERM, SIGHUP and Ctrl-C: a program that ends with a sentence and the code that says why.

A signal is heard by a thread of its own, through the file descriptor that Python's C handler writes
to, so that it is heard at once whatever the main thread is in: an import, a matrix product, Ray.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

PATIENCE_S = 5.0
"""How long the main thread may take to end by itself. Code that runs in C, or that swallows what is
raised in it, would never."""

AGAIN_S = 1.0
"""A second Ctrl-C after so long means: at once. Some programs pass on what their group got too."""


Ending = Callable[[int], tuple[int, str]]
"""The exit code and the sentence after a signal; 0: after the loss of what the program needs."""


class Interrupted(BaseException):
    """A signal asks the program to end. No Exception: nothing that expects failures catches it."""

    def __init__(self, number: int, note: str = "") -> None:
        """`note`: what to know about what was begun; shown to people."""
        super().__init__(number, note)
        self.number = number
        self.note = note


class Interruption:
    """Makes signals end the program. Use it as a context manager, in the main thread.

    The first raises Interrupted in the main thread; if that has not ended the context after
    PATIENCE_S seconds, the process ends where it is, as every command can be killed at any moment.
    Signals that are ignored, as under nohup, stay so. Elsewhere than in the main thread signals are
    left alone.
    """

    raises = True

    def __init__(self, ending: Ending | None = None, *, last: bool = False) -> None:
        """Signals are left alone before the context is entered. `ending`: else a command's.

        `last`: nothing comes after the context but the end of the process. All is done and said
        then, so that a signal changes nothing any more.
        """
        self._ending = ending or ending_of_command
        self._last = last
        self.asked: int | None = None
        self._heard_at = 0.0
        self._before: dict[int, Any] = {}
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Interruption:
        """Take the signals."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._inlet, outlet = socket.socketpair()
        self._outlet = outlet
        outlet.setblocking(False)
        self._descriptor = signal.set_wakeup_fd(outlet.fileno(), warn_on_full_buffer=False)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        self._thread = threading.Thread(target=self._listen, daemon=True, name="signals")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals as they were, or ignored where this is the last context."""
        if not hasattr(self, "_thread"):
            return
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._last else handler)
        signal.set_wakeup_fd(self._descriptor)
        self._outlet.close()
        self._thread.join()
        self._inlet.close()
        for timer in self._timers:
            timer.cancel()

    def insist(self) -> None:
        """Take the signals again, after code in C took them for itself without saying so."""
        for number in self._before:
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its steps."""
        if self.raises and self.asked in (None, number):
            self.raises = False  # once is enough, and must not hit what tidies up
            self.asked = number
            raise Interrupted(number)

    def _listen(self) -> None:
        while data := self._inlet.recv(64):
            for number in data:
                if number in self._before:
                    self._hear(number)

    def _hear(self, number: int) -> None:
        now = time.monotonic()
        if not self._heard_at:
            self._heard_at = now
            self.heard(number)
        elif number == signal.SIGINT and now - self._heard_at > AGAIN_S:
            self.end_now(number)

    def heard(self, number: int) -> None:
        """In the thread that hears: the first signal has come."""
        self.asked = number
        self.after(PATIENCE_S, lambda: self.end_now(number))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Act later, unless the context has ended by then."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def end_now(self, number: int) -> None:
        """End the process where it is."""
        say_and_exit(*self._ending(number))


def interrupted_by(error: BaseException) -> Interrupted | None:
    """The interruption that an error is or came of: code in C wraps what is raised in it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, Interrupted):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def ending_of_command(number: int, note: str = "") -> tuple[int, str]:
    """The conventional exit code and a sentence; `note` says what became of what was begun."""
    if number == 0:
        return 1, f"once it is fixed, {note or 'try the same command again'}"
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return 128 + number, f"interrupted{name}; {note or 'the same command does it again'}"


def leave(code: int) -> None:
    """End the process with all of its own tidied up, past what libraries do at their exit.

    Ray, interrupted while it starts, aborts there.
    """
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def say_and_exit(code: int, text: str) -> None:
    """Write a line and end this process at once, from whatever thread."""
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):  # the terminal may be what is gone
        os.write(2, f"{show_cursor}{text}\n".encode(errors="replace"))
    os._exit(code)
