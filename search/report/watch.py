"""Following a study from another terminal or machine, by reading what it stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from search.report.live import plain, screen
from search.study.journal import JOURNAL
from search.study.study_record import StudyRecord
from search.study.verdict import FILE as RESULT_FILE

PLAIN_S = 15.0
"""Seconds between lines where there is no terminal."""


def follow(folder: Path) -> Iterator[StudyRecord]:
    """The study's record, again whenever it is asked for; read anew only if something was written.

    Nothing is written and no lock is taken. Raises InputError if there is no study or its storage
    does not answer.
    """
    seen, record = _state(folder), StudyRecord.read(folder)
    while True:
        yield record
        now = _state(folder)
        if now != seen or record.config.storage is not None:
            seen, record = now, StudyRecord.read(folder)


def watch(
    console: Console,
    folder: Path,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> StudyRecord:
    """Show a study until it is over; a table in a terminal, else a line when something changed."""
    records = follow(folder)
    record = next(records)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    last = ""
    try:
        if live is not None:
            live.start()
        while True:
            if live is not None:
                live.update(screen(record.summary, folder), refresh=True)
            elif (line := plain(record.summary)) != last:
                last = line
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            if record.is_over:
                return record
            sleep(interval_s if live is not None else max(interval_s, PLAIN_S))
            record = next(records)
    finally:
        if live is not None:
            live.stop()


def _state(folder: Path) -> list[tuple[int, int] | None]:
    """Sizes and times of the files that a record is read from."""
    found: list[tuple[int, int] | None] = []
    for name in (JOURNAL, RESULT_FILE):
        try:
            facts = (folder / name).stat()
            found.append((facts.st_size, facts.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
