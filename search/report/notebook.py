"""How studies, verdicts and tables display themselves in a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields

from rich.console import Console

from search.report.live import plain
from search.report.text import print_verdict, sentence
from search.study.objective import Objective
from search.study.study_record import StudyRecord
from search.study.verdict import Verdict
from search.terminal import Terminal

WIDTH = 110
_FORMAT = '<pre style="overflow-x:auto;line-height:1.3;font-family:monospace">{code}</pre>'


def as_html(draw: Callable[[Console], None]) -> str:
    """What `draw` prints, as an HTML element; every text in it is escaped."""
    console = Terminal(
        file=io.StringIO(), record=True, width=WIDTH, markup=False, color_system="truecolor"
    )
    draw(console)
    return console.export_html(inline_styles=True, code_format=_FORMAT)


class ShownVerdict(Verdict):
    """A verdict that a notebook shows as `laser-search resume` prints it."""

    _objective: Objective

    @staticmethod
    def of(verdict: Verdict, objective: Objective) -> ShownVerdict:
        """The same verdict; `objective` says what its scores are."""
        values = {field.name: getattr(verdict, field.name) for field in fields(verdict)}
        shown = ShownVerdict(**values)
        object.__setattr__(shown, "_objective", objective)
        return shown

    def __repr__(self) -> str:
        """The verdict in one sentence."""
        return sentence(self, self.metric)

    def _repr_html_(self) -> str:
        return as_html(lambda console: print_verdict(console, self, self._objective))


def study_line(record: StudyRecord) -> str:
    """A study in one line: its folder's name, and where it stands."""
    return f"{record.folder.resolve().name}: {plain(record.summary)}"


def print_study(console: Console, record: StudyRecord, verdict: Verdict | None) -> None:
    """Print where a study stands, and its verdict if it has one."""
    console.print(study_line(record), highlight=False, markup=False)
    if verdict is not None:
        print_verdict(console, verdict, record.summary.objective)
