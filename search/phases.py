"""Which phase of a command runs, for how long, and about how much longer.

Commands tell a reporter what begins (`enter`) and how far it is (`advance`). On a terminal it keeps
one line up to date, elsewhere it writes a line for each phase that takes half a second, and one
more every ten seconds. It writes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from search.terminal import Terminal
from search.verbosity import Verbosity, current

LINE_S = 10.0
"""Seconds between lines where there is no terminal."""

FIRST_S = 0.5
"""A phase that is over sooner gets no line where there is no terminal: a command that ends at once,
or is refused, says one thing."""

PULSE_S = 0.25

SOON_S = 1.0
"""Less than this is not said to be left: the estimate has run out."""


class Phases(Protocol):
    """What commands tell their phases to."""

    def enter(self, name: str, total: int | None = None) -> None:
        """A phase begins, of `total` steps where they can be counted; again: it goes on."""

    def advance(self, done: int, *, left_s: float | None = None, detail: str = "") -> None:
        """So many steps are done.

        `left_s`: seconds until the end, where the caller knows better than steps a second.
        `detail`: what else the line says.
        """

    def note(self, text: str) -> None:
        """A line that stays."""


class Silence:
    """Says nothing: for `--quiet`, and for callers who want no progress."""

    def enter(self, name: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, done: int, *, left_s: float | None = None, detail: str = "") -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT: Phases = Silence()


def in_batches(phases: Phases, name: str) -> Callable[[int, int], None]:
    """A phase called `name` that begins now; call it with the batches done and their number."""
    phases.enter(name)

    def heard(done: int, total: int) -> None:
        phases.enter(f"{name}: batch", total)
        phases.advance(done)

    return heard


class PhaseReporter:
    """Shows the phases on `console`. Use it as a context manager.

    `below` is shown under the line, on a terminal alone. All methods may be called by any thread.
    """

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_s: float = FIRST_S,
        every_s: float = LINE_S,
        pulse: bool = True,
    ) -> None:
        """`clock` in seconds; without a `pulse` only `tick` makes time go on."""
        self.console = console
        self.below: RenderableType | None = None
        self._clock = clock
        self._first_s = first_s
        self._every_s = every_s
        self._pulse = pulse
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._detail = ""
        self._began = clock()
        self._next_s = first_s
        self._ends: float | None = None

    @property
    def is_live(self) -> bool:
        """Whether what it shows is replaced, so that `below` is seen."""
        return self.console.is_terminal

    def __enter__(self) -> PhaseReporter:
        """Start the live line where there is a terminal, else the thread that writes lines."""
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._screen,
                refresh_per_second=4,
                auto_refresh=self._pulse,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        elif self._pulse:
            self._thread = threading.Thread(target=self._beat, daemon=True, name="phases")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the live line and the thread; what comes after is printed below."""
        self._over.set()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._thread is not None:
            self._thread.join()

    def enter(self, name: str, total: int | None = None) -> None:
        """A phase begins, of `total` steps where they can be counted; again: it goes on."""
        with self._lock:
            if (name, total) == (self._name, self._total):
                return
            self._name, self._total = name, total
            self._done, self._detail, self._ends = 0, "", None
            self._began, self._next_s = self._clock(), self._first_s
            self.below = None

    def advance(self, done: int, *, left_s: float | None = None, detail: str = "") -> None:
        """So many steps are done; see `Phases`."""
        with self._lock:
            now = self._clock()
            if left_s is None and self._total is not None and done:
                left_s = (now - self._began) / done * (self._total - done)
            self._ends = None if left_s is None else now + left_s
            self._done, self._detail = done, detail

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._print(text)

    def tick(self) -> None:
        """Time has gone on: write a line if it is time for one."""
        with self._lock:
            if self._live is not None:
                self._live.refresh()
            elif self._name and (lasted := self._clock() - self._began) >= self._next_s:
                self._next_s = (lasted // self._every_s + 1) * self._every_s
                self._print(self.line())

    def line(self) -> str:
        """The phase, its steps, the time since it began, and what is left."""
        with self._lock:
            now = self._clock()
            steps = "" if self._total is None else f" {self._done}/{self._total}"
            parts = [f"{self._name}{steps}"]
            if now - self._began >= SOON_S:
                parts.append(duration(now - self._began))
            if self._ends is not None and self._ends - now >= SOON_S:
                parts.append(f"about {duration(self._ends - now)} left")
            return ", ".join([*parts, *([self._detail] if self._detail else [])])

    def _screen(self) -> RenderableType:
        line = Text(self.line() if self._name else "")
        return line if self.below is None else Group(line, self.below)

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _beat(self) -> None:
        while not self._over.wait(min(PULSE_S, self._every_s)):
            self.tick()


@contextmanager
def reporting() -> Iterator[Phases]:
    """A reporter on standard error; under ``--quiet`` one that says nothing."""
    if current() is Verbosity.QUIET:
        yield SILENT
        return
    with PhaseReporter(Terminal(error=True, markup=False), first_s=FIRST_S) as reporter:
        yield reporter


class Relay:
    """Writes what it is told as lines of JSON, for the process that started this one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def enter(self, name: str, total: int | None = None) -> None:
        """A phase begins."""
        self._say("enter", name, total)

    def advance(self, done: int, *, left_s: float | None = None, detail: str = "") -> None:
        """So many steps are done."""
        self._say("advance", done, left_s, detail)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._say("note", text)

    def _say(self, *words: object) -> None:
        self._stream.write(json.dumps(words) + "\n")
        self._stream.flush()


def relay(stream: TextIO) -> Phases:
    """A reporter whose words another process passes on with `retell`."""
    return Relay(stream)


def retell(line: str, phases: Phases) -> None:
    """Tell `phases` what a child process wrote with `relay`; other lines are passed by."""
    try:
        match json.loads(line):
            case ["enter", str(name), int() | None as total]:
                phases.enter(name, total)
            case ["advance", int(done), left_s, str(detail)]:
                phases.advance(done, left_s=left_s, detail=detail)
            case ["note", str(text)]:
                phases.note(text)
    except ValueError:
        return


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
