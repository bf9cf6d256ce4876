"""What the workers of a study wrote down, in the order of time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.interruption import Interrupted
from search.study.identity import Identity
from tasks.errors import InputError, nearest
from tasks.printable import printable
from tasks.secrets import hide_secrets

POLL_S = 1.0


@dataclass
class WorkerLogs:
    """The lines of a study's worker logs; each call of `new` gives those since the last."""

    folder: Path
    worker: str | None = None
    _read: dict[Path, int] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InputError if there is no study, or no such worker in it."""
        Identity.read(self.folder)
        names = [_name(path) for path in self._paths(None)]
        if self.worker is not None and not self._paths(self.worker):
            raise InputError(
                f"worker {self.worker!r} has no log in {self.folder / 'logs'}; it has "
                f"{', '.join(names) or 'none'}{nearest(self.worker, names)}"
            )

    def new(self) -> list[dict[str, Any]]:
        """Whole lines that were added, oldest first, with the worker's name; torn ones wait."""
        found = [line for path in self._paths(self.worker) for line in self._lines(path)]
        return sorted(found, key=lambda line: float(line["time"]))

    def _paths(self, worker: str | None) -> list[Path]:
        paths = sorted(self.folder.glob("logs/worker-*.jsonl"))
        return [path for path in paths if worker is None or worker in _name(path)]

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            with path.open("rb") as stream:
                stream.seek(self._read.get(path, 0))
                data = stream.read()
        except OSError:
            return
        whole, newline, _ = data.rpartition(b"\n")
        self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
        for text in whole.splitlines():
            if (line := _line(text)) is not None:
                yield {**line, "worker": _name(path)}


def print_logs(
    logs: WorkerLogs,
    show: Callable[[str], None],
    *,
    last: int | None,
    follow: bool,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the `last` lines (default: all), and with `follow` what comes until Ctrl-C."""
    logs.check()
    lines = logs.new()
    try:
        for line in lines[-last:] if last else lines:
            show(json.dumps(line) if as_json else sentence(line))
        while follow:
            sleep(POLL_S)
            for line in logs.new():
                show(json.dumps(line) if as_json else sentence(line))
    except (KeyboardInterrupt, Interrupted):
        return


def sentence(line: dict[str, Any]) -> str:
    """One line for people: when, who, what, and what else is known."""
    facts = {k: v for k, v in line.items() if k not in ("time", "worker", "event") and v}
    when = datetime.fromtimestamp(float(line["time"]), UTC).isoformat(" ", "seconds")
    rest = printable(hide_secrets(" ".join(f"{name}={value}" for name, value in facts.items())))
    what = printable(f"{line['worker']} {line['event']}")
    return f"{when.removesuffix('+00:00')} {what} {rest}".rstrip()


def _line(text: bytes) -> dict[str, Any] | None:
    """One line of a log; None where it is cut, as by a full disk, or of another shape."""
    try:
        line = json.loads(text)
        datetime.fromtimestamp(float(line["time"]), UTC)
        return {**line, "event": str(line["event"])}
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _name(path: Path) -> str:
    return path.stem.removeprefix("worker-")
