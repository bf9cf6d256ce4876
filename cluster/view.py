"""What launch and resume show: a live table in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from search.report.live import bar, plain, screen
from search.study.summary import Summary

REFRESH_S = 0.5
PLAIN_S = 15.0


class LiveView:
    """Shows progress on `console`; `quiet` shows nothing. Use it as a context manager."""

    def __init__(self, console: Console, quiet: bool = False, folder: Path | None = None) -> None:
        """Nothing is shown before the context is entered; workers, if the study's `folder` is."""
        self._folder = folder
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._shown_at = 0.0
        self._last_line = ""

    def __enter__(self) -> LiveView:
        """Start the live display where there is a terminal."""
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the live display; what comes after is printed below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def factors(self, done: int, total: int) -> None:
        """Progress of the factors."""
        if self._live is not None:
            self._live.update(bar("factors", done, total))
        elif done == total:
            self.note(f"factors: {total} matrices ready")

    def study(self, summarise: Callable[[], Summary], *, force: bool = False) -> None:
        """Progress of the trials; summarised only as often as it is shown."""
        now = time.monotonic()
        interval = REFRESH_S if self._live is not None else PLAIN_S
        if self._quiet or (now - self._shown_at < interval and not force):
            return
        self._shown_at = now
        summary = summarise()
        if self._live is not None:
            self._live.update(screen(summary, self._folder))
        elif (line := plain(summary)) != self._last_line:
            self._last_line = line
            self.note(line)
