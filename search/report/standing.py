"""How a study's machines do: its driver, its rate and projected end, its workers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from search.phases import duration
from search.report.cost import wall_text
from search.report.live import Worker, find_workers
from search.study.driver_log import last_end
from search.study.lock import Holder, find_driver
from search.study.summary import Summary


def standing_facts(folder: Path, summary: Summary) -> dict[str, Any]:
    """As plain data. `ends` is None unless a driver is at work at a known rate."""
    driver, workers = find_driver(folder), find_workers(folder)
    return {
        "driver": None if driver is None else {"host": driver.host, "pid": driver.pid},
        "last_end": None if driver is not None else last_end(folder),
        "rate_per_s": summary.rate_per_s,
        "left_s": summary.left_s,
        "ends": None if driver is None else _end(summary),
        "workers": [asdict(worker) for worker in workers],
    }


def standing(folder: Path, summary: Summary) -> list[str]:
    """The same for people, one line each."""
    driver = find_driver(folder)
    lines = [_driver(driver, folder, summary)]
    if summary.rate_per_s:
        lines.append(f"rate: {summary.rate_per_s:.3g} trials/s")
        if driver is not None and summary.left_s and (end := _end(summary)):
            lines[-1] += f", about {duration(summary.left_s)} left, until {end}"
    workers = find_workers(folder) if driver is not None else []
    spent = wall_text(summary.wall_s)
    lines += [spent] if spent else []
    return lines + ([_workers(workers)] if workers else []) + [_worker(one) for one in workers]


def _driver(driver: Holder | None, folder: Path, summary: Summary) -> str:
    if driver is not None:
        return f"driver: {driver.text}"
    if summary.finished < summary.asked and not summary.ended:
        why = last_end(folder)
        said = f"; the last one stopped: {why}" if why else ""
        return f"driver: none{said}; continue with laser-search resume {folder}"
    return "driver: none"


def _end(summary: Summary) -> str | None:
    if summary.left_s is None or summary.finished >= summary.asked:
        return None
    end = datetime.now(UTC) + timedelta(seconds=summary.left_s)
    return end.isoformat(" ", "minutes").replace("+00:00", " UTC")


def _workers(workers: list[Worker]) -> str:
    known = [worker.busy for worker in workers if worker.busy is not None]
    evaluating = sum(worker.event == "start" for worker in workers)
    text = f"workers: {len(workers)}, {evaluating} evaluating"
    return text + (f", busy {sum(known) / len(known):.0%} of the time" if known else "")


def _worker(worker: Worker) -> str:
    facts = [f"{worker.does} for {duration(worker.for_s)}"]
    if worker.busy is not None:
        facts.append(f"busy {worker.busy:.0%}")
    if worker.gpu_gib is not None:
        facts.append(f"GPU memory {worker.gpu_gib:g} GiB")
    return f"  {worker.name}: {', '.join(facts)}"
