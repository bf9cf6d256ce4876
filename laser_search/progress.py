"""How a study goes: in the cell of a notebook, on a terminal, or in lines on standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from search.phases import SILENT, PhaseReporter, Phases, reporting
from search.report.notebook import as_html
from search.terminal import Terminal

SHOWN_S = 0.5


class CellReporter(PhaseReporter):
    """Keeps one output of a cell up to date: the notes, the phase, and what stands below it."""

    def __init__(self, cell: Any) -> None:
        """`cell`: a display handle of IPython."""
        super().__init__(Terminal(file=io.StringIO(), markup=False))
        self._cell = cell
        self._notes: list[str] = []
        self._shown_at = -float("inf")

    def __exit__(self, *_: object) -> None:
        """Leave the notes alone in the cell."""
        super().__exit__()
        with self._lock:
            self._name, self.below, self._shown_at = "", None, -float("inf")
        self.tick()

    @property
    def is_live(self) -> bool:
        """A cell's output is replaced."""
        return True

    def tick(self) -> None:
        """Update the cell, if that was not done just now."""
        with self._lock:
            if self._clock() - self._shown_at < SHOWN_S:
                return
            self._shown_at = self._clock()
            shown, line = self._screen(), self.line()
        html = as_html(lambda console: console.print(shown))
        self._cell.update({"text/html": html, "text/plain": line}, raw=True)

    def _screen(self) -> RenderableType:
        return Group(*map(Text, self._notes), super()._screen())

    def _print(self, text: str) -> None:
        self._notes.append(text)


@contextmanager
def reporting_here(quiet: bool) -> Iterator[Phases]:
    """A reporter for a call from Python: of the cell that runs, else as a command has one."""
    if quiet:
        yield SILENT
    elif (cell := _cell()) is None:
        with reporting() as phases:
            yield phases
    else:
        with CellReporter(cell) as reporter:
            yield reporter


def _cell() -> Any:
    """An output of the notebook's cell that runs; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)
