"""How a study goes, in a notebook or a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from search.report.live import bar, plain, screen
from search.report.notebook import as_html
from search.study.summary import Summary
from search.terminal import Terminal

LIVE_S = 0.5
LINE_S = 10.0


class Progress:
    """One display that is kept up to date: an output of the cell, or lines of a terminal.

    Elsewhere a line every ten seconds, on standard error. Use it as a context manager. `quiet`
    shows nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console: Console = Terminal(file=sys.stderr, markup=False)
        self._quiet = quiet
        self._cell = None if quiet else _cell()
        self._live: Live | None = None
        self._shown_at = -float("inf")
        self._last_line = ""

    def __enter__(self) -> Progress:
        """Begin the display where there is a terminal."""
        if self._cell is None and not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the display of a terminal; a cell keeps the last state."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """A line to know; a notebook shows it with what comes next."""
        if not self._quiet and self._cell is None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def factors(self, done: int, total: int) -> None:
        """So many matrices of `total` are decomposed."""
        line = f"factors: {done} of {total} matrices"
        self._show(lambda: (bar("factors", done, total), line), last=done == total)

    def study(self, summarise: Callable[[], Summary], *, last: bool = False) -> None:
        """Something happened; summarised only as often as it is shown."""

        def state() -> tuple[RenderableType, str]:
            summary = summarise()
            return screen(summary), plain(summary)

        self._show(state, last=last)

    def _show(self, state: Callable[[], tuple[RenderableType, str]], *, last: bool) -> None:
        now = time.monotonic()
        every_s = LINE_S if self._cell is None and self._live is None else LIVE_S
        if self._quiet or (now - self._shown_at < every_s and not last):
            return
        self._shown_at = now
        shown, line = state()
        if self._cell is not None:
            html = as_html(lambda console: console.print(shown))
            self._cell.update({"text/html": html, "text/plain": line}, raw=True)
        elif self._live is not None:
            self._live.update(shown)
        elif line != self._last_line:
            self._last_line = line
            self.note(line)


def _cell() -> Any:
    """An output of the notebook's cell that runs; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)
