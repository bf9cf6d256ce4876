"""What launch and resume show: a live table in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from search.study.summary import Summary

REFRESH_S = 0.5
PLAIN_S = 15.0


class View:
    """Shows progress on `console`; `quiet` shows nothing. Use it as a context manager."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        """Nothing is shown before the context is entered."""
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._shown_at = 0.0
        self._last_line = ""

    def __enter__(self) -> View:
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
            self._live.update(_bar("factors", done, total))
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
            self._live.update(
                Group(_bar("trials", summary.finished, summary.asked), table(summary))
            )
        elif (line := plain(summary)) != self._last_line:
            self._last_line = line
            self.note(line)


def plain(summary: Summary) -> str:
    """One line on where a study stands."""
    parts = [f"trials: {summary.finished}/{summary.asked}"]
    for name in ("running", "pruned", "failed", "infeasible", "duplicates"):
        if count := getattr(summary, name):
            parts.append(f"{count} {name}")
    if summary.rate_per_s:
        parts.append(f"{summary.rate_per_s:.2g}/s")
    if summary.left_s and summary.finished < summary.asked:
        parts.append(f"about {duration(summary.left_s)} left")
    if summary.baseline is not None:
        parts.append(f"baseline {summary.baseline_text}")
    if summary.best is not None:
        parts.append(f"best {summary.best_text} [{summary.best.user_attrs['composition']}]")
    return ", ".join(parts)


def table(summary: Summary) -> RenderableType:
    """The counts, the baseline and the best so far."""
    grid = Table.grid(padding=(0, 2))
    counts = f"{summary.running} running, {summary.pruned} pruned, {summary.failed} failed, "
    if summary.infeasible:
        counts += f"{summary.infeasible} infeasible, "
    grid.add_row("trials", counts + f"{summary.duplicates} duplicates answered from the record")
    left = "" if summary.left_s is None else f", about {duration(summary.left_s)} left"
    grid.add_row("rate", f"{summary.rate_per_s:.2f} trials/s{left}")
    if summary.baseline is not None:
        grid.add_row("baseline", summary.baseline_text)
    if summary.best is not None:
        found = f"{summary.best_text}  {summary.best.user_attrs['composition']}"
        grid.add_row("best", f"{found}  (trial {summary.best.number})")
    for reason, count in list(summary.failures.items())[:3]:
        grid.add_row("failed", f"{count}x {reason}")
    return grid


def _bar(name: str, done: int, total: int) -> Progress:
    progress = Progress(TextColumn(name), BarColumn(bar_width=40), MofNCompleteColumn())
    progress.add_task(name, completed=done, total=total)
    return progress


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
