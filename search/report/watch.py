"""Following a study from another terminal or machine, by reading what it stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
from rich.console import Console
from rich.live import Live

from search.report.live import plain, screen
from search.study.jobs import BASELINE
from search.study.outcomes import read_outcomes
from search.study.record import StudyRecord
from search.study.storage import JOURNAL, open_storage
from search.study.study import BUDGET
from search.study.summary import summarise
from search.study.verdict import read_result

PLAIN_S = 15.0
"""Seconds between lines where there is no terminal."""


def follow(folder: Path) -> Iterator[StudyRecord]:
    """The study's record, again whenever it is asked for; the storage is opened once.

    Only what was added since is read. Nothing is written and no lock is taken. Raises InputError if
    there is no study or its storage does not answer.
    """
    record = StudyRecord.read(folder)
    yield record
    study: optuna.Study | None = None
    while True:
        identity, config = record.identity, record.config
        baseline = record.summary.baseline
        if baseline is None:
            baseline = read_outcomes(folder, BASELINE, identity.study_id, "")
        if study is None and (config.storage is not None or (folder / JOURNAL).exists()):
            study = _load(folder, config.storage, identity.study_id)
        trials = [] if study is None else study.get_trials(deepcopy=False)
        asked = config.search.trials if study is None else study.user_attrs.get(BUDGET)
        summary = summarise(trials, baseline, asked or config.search.trials)
        record = replace(record, trials=trials, summary=summary, result=read_result(folder))
        yield record


def is_over(record: StudyRecord) -> bool:
    """Whether the study has its verdict for the trials that it was asked for."""
    return record.result is not None and record.summary.finished >= record.summary.asked


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
            if is_over(record):
                return record
            sleep(interval_s if live is not None else max(interval_s, PLAIN_S))
            record = next(records)
    finally:
        if live is not None:
            live.stop()


def _load(folder: Path, url: str | None, name: str) -> optuna.Study | None:
    storage = open_storage(folder, url)
    if name not in {study.study_name for study in storage.get_all_studies()}:
        return None
    return optuna.load_study(study_name=name, storage=storage)
