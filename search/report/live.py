"""Where a study stands, for a terminal: progress, the best, recent trials, workers, failures."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from search.phases import duration
from search.study.driver_log import last_begin_s
from search.study.summary import Summary
from search.study.trials import TrialRecord

TAIL_BYTES = 4096
MOST_WORKERS = 8
GONE_S = 900.0
"""Silence after which a worker is no longer shown: it may have ended with an earlier driver."""


@dataclass(frozen=True)
class Worker:
    """One worker's log: who, what it does or did last, and how many seconds ago it began to.

    `busy`: the share of its last minutes that it evaluated in, `gpu_gib` the most memory of its GPU
    that it has used; None where that is not known.
    """

    name: str
    event: str
    job: str
    for_s: float
    busy: float | None = None
    gpu_gib: float | None = None

    @property
    def does(self) -> str:
        """What it does, for people."""
        words = {"start": self.job, "done": "waits", "setup": "has loaded the model"}
        return words.get(self.event, self.event)


def find_workers(folder: Path, now: float | None = None) -> list[Worker]:
    """The workers whose logs in a study folder were written lately, the latest first.

    Those that wrote nothing since the last driver began are an earlier driver's, and gone. Only the
    end of each log is read. Workers on machines that do not share the folder leave none.
    """
    now = time.time() if now is None else now
    found = [_last(path, now) for path in folder.glob("logs/worker-*.jsonl")]
    since = min(GONE_S, now - last_begin_s(folder))
    alive = [worker for worker in found if worker is not None and worker.for_s < since]
    return sorted(alive, key=lambda worker: (worker.for_s, worker.name))


def _last(path: Path, now: float) -> Worker | None:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = stream.read().splitlines()
        line: dict[str, Any] = json.loads(lines[-1])
        recent = [json.loads(text) for text in lines[1:]]  # the first may be cut
        return Worker(
            path.stem.removeprefix("worker-"),
            str(line["event"]),
            str(line.get("job", "")),
            max(0.0, now - float(line["time"])),
            _busy(recent),
            max((float(one["gpu_gib"]) for one in recent if "gpu_gib" in one), default=None),
        )
    except (OSError, ValueError, IndexError, KeyError, TypeError, RecursionError):
        return None  # empty, or a line is just being written


def _busy(lines: list[dict[str, Any]]) -> float | None:
    """The share of the time between the first start and the last end that was evaluated in."""
    began: float | None = None
    first = last = None
    worked = 0.0
    for line in lines:
        time_s = float(line["time"])
        if line["event"] == "start":
            first = time_s if first is None else first
            began = time_s
        elif began is not None:
            worked, last, began = worked + time_s - began, time_s, None
    if first is None or last is None or last <= first:
        return None
    return worked / (last - first)


def plain(summary: Summary) -> str:
    """One line on where a study stands."""
    parts = [f"trials: {summary.finished}/{summary.asked}", *_counts(summary)]
    if summary.rate_per_s:
        parts.append(f"{summary.rate_per_s:.2g}/s")
    if summary.left_s and summary.finished < summary.asked:
        parts.append(f"about {duration(summary.left_s)} left")
    return ", ".join(parts + _found(summary))


def findings(summary: Summary) -> str:
    """The same without progress and time, for a line that has them already."""
    return ", ".join(_counts(summary) + _found(summary))


def _counts(summary: Summary) -> list[str]:
    names = ("running", "pruned", "failed", "infeasible")
    return [f"{count} {name}" for name in names if (count := getattr(summary, name))]


def _found(summary: Summary) -> list[str]:
    parts = []
    if summary.baseline is not None:
        parts.append(f"baseline {summary.baseline_text}")
    if summary.best is not None:
        parts.append(f"best {summary.best_text} [{summary.best.brief}]")
    return parts


def facts(summary: Summary) -> dict[str, Any]:
    """The same as plain data, for scripts."""
    names = ("asked", "finished", "complete", "pruned", "failed", "infeasible", "running")
    best = summary.best
    return {
        **{name: getattr(summary, name) for name in names},
        "rate_per_s": summary.rate_per_s,
        "left_s": summary.left_s,
        "failures": summary.failures,
        "baseline": None if summary.baseline is None else summary.baseline.score,
        "best": None if best is None else best.score,
        "composition": None if best is None else best.text,
    }


def screen(summary: Summary, folder: Path | None = None) -> RenderableType:
    """Everything that `watch` shows; workers only where their study's `folder` is given."""
    return Group(bar("trials", summary.finished, summary.asked), details(summary, folder))


def details(summary: Summary, folder: Path | None = None) -> RenderableType:
    """The same without the bar: what stands below the line of the phase."""
    parts: list[RenderableType] = [table(summary)]
    if summary.recent:
        parts += [Text(), recent(summary)]
    workers = [] if folder is None else find_workers(folder)
    if workers:
        parts += [Text(), worker_table(workers)]
    return Group(*parts)


def table(summary: Summary) -> RenderableType:
    """The counts, the baseline, the best so far, and the commonest failures."""
    grid = Table.grid(padding=(0, 2))
    counts = f"{summary.running} running, {summary.pruned} pruned, {summary.failed} failed"
    if summary.infeasible:
        counts += f", {summary.infeasible} infeasible"
    grid.add_row("trials", counts)
    open_ = summary.finished < summary.asked and summary.left_s is not None
    left = f", about {duration(summary.left_s or 0.0)} left" if open_ else ""
    grid.add_row("rate", f"{summary.rate_per_s:.2f} trials/s{left}")
    if summary.baseline is not None:
        grid.add_row("baseline", summary.baseline_text)
    if summary.best is not None:
        found = f"{summary.best_text}  {summary.best.brief}"
        grid.add_row("best", f"{found}  (trial {summary.best.number})")
    if ranking := summary.objective.ranking:
        grid.add_row("ranked by", ranking)
    for reason, count in list(summary.failures.items())[:3]:
        grid.add_row("failed", Text(f"{count}x {reason}"))
    return grid


def recent(summary: Summary) -> RenderableType:
    """The trials that ended last, the latest first."""
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "score", "composition"):
        grid.add_column(name, justify="left" if name == "composition" else "right")
    for trial in summary.recent:
        grid.add_row(str(trial.number), Text(_result(trial)), Text(trial.brief))
    return grid


def worker_table(workers: list[Worker]) -> RenderableType:
    """What each worker does, those that did something last first."""
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "does", "for"):
        grid.add_column(name)
    for worker in workers[:MOST_WORKERS]:
        grid.add_row(Text(worker.name), Text(worker.does), duration(worker.for_s))
    if len(workers) > MOST_WORKERS:
        grid.add_row(f"and {len(workers) - MOST_WORKERS} more", "", "")
    return grid


def bar(name: str, done: int, total: int) -> Progress:
    """A bar with its numbers."""
    progress = Progress(TextColumn(name), BarColumn(bar_width=40), MofNCompleteColumn())
    progress.add_task(name, completed=done, total=total)
    return progress


def _result(trial: TrialRecord) -> str:
    if trial.complete and trial.score is not None:
        return f"{trial.score:.4f}"
    return trial.state.name.lower()
