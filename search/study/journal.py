"""Lines of a journal that follow from one another, so that none can change, go or come twice.

Each line that this program writes ends in ``"sum":"…"``: BLAKE2b-64 of the sum before and of the
line's own text up to there. Optuna reads such lines as any others. Lines without a sum come from an
earlier version, at the beginning, which the first sum covers; or from optuna-dashboard, which may
set attributes of the system's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from search.durable import write_bytes
from search.study.sealed_files import DamagedError

JOURNAL = "study.journal"
"""The file in a study folder."""

_SUM = b',"sum":"'
_END = b'"}\n'
_DIGITS = 16
_CREATE_TRIAL = 4
_SYSTEM_ATTRIBUTES = (3, 9)
"""Optuna's codes of operations: a trial is created; a study's and a trial's own attributes."""


@dataclass(frozen=True)
class Link:
    """Where a chain stands after `number` lines, at byte `offset`; `begun`: a line had a sum."""

    number: int = 0
    offset: int = 0
    sum: str = ""
    begun: bool = False
    trials: int = 0

    def sealed(self, log: dict[str, Any]) -> tuple[dict[str, Any], Link]:
        """`log` with its sum as it is to be recorded next, and where the chain stands after it.

        Its line must be written as Optuna writes it: compact, and in the order of its keys.
        """
        body = json.dumps(log, separators=(",", ":")).encode()[:-1]
        digest = _follows(self.sum, body)
        line = body + _SUM + digest.encode() + _END
        after = self._after(line, digest, begun=True, trial=log["op_code"] == _CREATE_TRIAL)
        return {**log, "sum": digest}, after

    def check(self, line: bytes) -> tuple[dict[str, Any], Link]:
        """What a line records, and where the chain stands after it. Raises DamagedError."""
        try:
            log: dict[str, Any] = json.loads(line)
            code = log["op_code"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DamagedError("it is not the record of an operation") from None
        body, found, end = line.rpartition(_SUM)
        if not found:
            if self.begun and code not in _SYSTEM_ATTRIBUTES:
                raise DamagedError("its checksum is missing")
            digest = self.sum if self.begun else _follows(self.sum, line)
            return log, self._after(line, digest, begun=self.begun, trial=code == _CREATE_TRIAL)
        digest = end[:_DIGITS].decode("ascii", "replace")
        if end[_DIGITS:] != _END or digest != _follows(self.sum, body):
            raise DamagedError(
                "it does not follow from the line before: one was changed, lost or doubled"
            )
        return log, self._after(line, digest, begun=True, trial=code == _CREATE_TRIAL)

    def _after(self, line: bytes, digest: str, *, begun: bool, trial: bool) -> Link:
        return replace(
            self,
            number=self.number + 1,
            offset=self.offset + len(line),
            sum=digest,
            begun=begun,
            trials=self.trials + trial,
        )


def _follows(previous: str, body: bytes) -> str:
    return hashlib.blake2b(previous.encode() + body, digest_size=_DIGITS // 2).hexdigest()


def read_chain(stream: BinaryIO, link: Link) -> Iterator[tuple[dict[str, Any], Link]]:
    """The whole lines of a journal from `link` on; a torn last one is left out.

    Raises DamagedError, whose `link` is the last sound one.
    """
    stream.seek(link.offset)
    for line in stream:
        if not line.endswith(b"\n"):
            return
        try:
            log, link = link.check(line)
        except DamagedError as error:
            raise DamagedChain(link, str(error)) from None
        yield log, link


class DamagedChain(DamagedError):  # noqa: N818  (named for what is damaged)
    """A journal that is sound up to `link` only."""

    def __init__(self, link: Link, reason: str) -> None:
        super().__init__(reason)
        self.link = link


@dataclass(frozen=True)
class Damage:
    """A journal whose lines from `line` (counted from 1) on are not used.

    `kept`, `lost`: trials that were begun before it, and at least how many after it.
    """

    path: Path
    line: int
    offset: int
    reason: str
    kept: int
    lost: int

    def __str__(self) -> str:
        lost = f"; {self.lost} begun after it are lost" if self.lost else ""
        return (
            f"{self.path} is damaged at line {self.line} ({self.reason}): the {self.kept} trials "
            f"begun before it are kept{lost}"
        )


def find_damage(path: Path) -> Damage | None:
    """Check every line of a journal; None if they follow from one another."""
    try:
        with path.open("rb") as stream:
            for _ in read_chain(stream, Link()):
                pass
    except DamagedChain as error:
        link = error.link
        with path.open("rb") as stream:
            stream.seek(link.offset)
            lost = sum(b'"op_code":%d,' % _CREATE_TRIAL in line for line in stream)
        return Damage(path, link.number + 1, link.offset, str(error), link.trials, lost)
    except FileNotFoundError:
        pass
    return None


def mend_journal(folder: Path) -> str:
    """Undo what a kill inside an append leaves; call only while holding the study's lock.

    A stale lock would stall the next writer for 30 s. A torn last line reads well, but the next
    append would be glued to it and make the file unreadable. A journal that is damaged further up
    is copied to ``study.journal.damaged`` (or ``.damaged-2`` and so on) and cut before the first
    line that is not as it was written; returns a sentence on that, empty where all is well.
    """
    journal = folder / JOURNAL
    with contextlib.suppress(FileNotFoundError):
        Path(f"{journal}.lock").unlink()
    if not journal.exists():
        return ""
    _cut_torn_line(journal)
    damage = find_damage(journal)
    if damage is None:
        return ""
    number, aside = 1, Path(f"{journal}.damaged")
    while aside.exists():
        number += 1
        aside = Path(f"{journal}.damaged-{number}")
    write_bytes(aside, journal.read_bytes())
    with journal.open("r+b") as stream:
        stream.truncate(damage.offset)
        stream.flush()
        os.fsync(stream.fileno())
    return f"{damage}; the damaged file is kept as {aside.name}"


def _cut_torn_line(journal: Path) -> None:
    with journal.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - 4096)
            stream.seek(start)
            newline = stream.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < end:
            stream.truncate(position)
            stream.flush()
            os.fsync(stream.fileno())
