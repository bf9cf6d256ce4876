"""Where the Optuna study lives: a journal file in the study folder, or a database by URL.

Both lose nothing when a disk is full or a database is gone for a while. A write that fails is the
end of writing for a file, whose torn line is taken back; a database is asked again until it
answers (search/study/database.py). What cannot be mended raises StorageLost, and every write after
it, so that nothing is recorded behind a gap.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.study.journal import JOURNAL, DamagedChain, Link, find_damage, read_chain
from tasks.errors import InputError
from tasks.foreign import words_of
from tasks.secrets import hide_secrets

Guard = Callable[[], None]


class StorageLost(Exception):  # noqa: N818 - says what happened
    """Nothing can be recorded any more; the message is a sentence for people."""


def refusal(path: Path, error: OSError) -> str:
    """Why `path` cannot be written, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "make it writable"
    return f"{path} cannot be written ({error.strerror or error}); {remedy}"


class EnduringJournal(JournalFileBackend):
    """A journal file without torn lines, written while `guard` allows it.

    What belongs together is flushed to the disk once: asking for a trial makes thirty lines, none
    of which is of use before the last. A group that is killed has not begun, or got as far as its
    first lines, as if every line were written by itself. For one writer, and one storage, to which
    lines are told in the order in which they came to be known: a note that the dashboard writes
    while lines wait comes before them in the file, and after them here.
    """

    def __init__(self, path: Path, guard: Guard) -> None:
        """`guard` raises StorageLost when another driver has taken the study over."""
        super().__init__(str(path))
        self._path = path
        self._guard = guard
        self._lost: str | None = None
        self._depth = 0
        self._waiting: list[dict[str, Any]] = []
        self._told = 0  # lines in all
        self._told_waiting = 0  # the first so many that wait
        self._told_ahead: set[str] = set()  # by their sums: in the file, beyond the link
        self._link = Link()  # of what was read last, or written and told

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, lines wait; at the end they are written at once. Raises StorageLost."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._write()

    @contextmanager
    def later(self) -> Iterator[None]:
        """Within, lines wait, and afterwards for what is recorded next: a kill loses them.

        For what is of no use until more is recorded.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any]]:
        """The lines from a number on, with those that wait. Raises DamagedChain."""
        if log_number_from != self._told:  # not the storage that was told so far
            self._link, self._told, self._told_waiting = Link(), 0, 0
            self._told_ahead.clear()
        for log in self._news():
            self._told += 1
            if self._told > log_number_from:
                yield log

    def _news(self) -> Iterator[dict[str, Any]]:
        """The lines that nobody was told of."""
        for log, after in self._beyond(self._link):
            self._link = after
            if (own := log.get("sum")) in self._told_ahead:
                self._told_ahead.remove(own)
            else:
                yield log
        while self._told_waiting < len(self._waiting):
            self._told_waiting += 1
            yield self._waiting[self._told_waiting - 1]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines or nothing, at once or at the end of the group. Raises StorageLost."""
        self._waiting += logs
        if not self._depth:
            self._write()

    def _write(self) -> None:
        waiting, told = self._waiting, self._told_waiting
        self._waiting, self._told_waiting = [], 0
        if not waiting:
            return
        sums, end = self._append(waiting)
        follows = end.number == self._link.number + told  # all told, and nothing unread before
        if follows and self._path.stat().st_size == end.offset:
            self._link = end  # nobody else wrote: there is nothing to read back
        else:
            self._told_ahead.update(sums[:told])

    def _append(self, logs: list[dict[str, Any]]) -> tuple[list[str], Link]:
        """The lines' sums, and where the chain ends if nobody else writes meanwhile."""
        if self._lost is not None:
            raise StorageLost(self._lost)
        self._guard()
        size = self._path.stat().st_size
        try:
            link = self._link
            for _, after in self._beyond(link):
                link = after
            sealed = []
            for log in logs:
                with_sum, link = link.sealed(log)
                sealed.append(with_sum)
            super().append_logs(sealed)
        except DamagedChain as error:
            self._lost = f"{self._path} was damaged while the study ran ({error})"
            raise StorageLost(self._lost) from None
        except OSError as error:
            self._lost = refusal(self._path, error)
            with suppress(OSError):  # a resume cuts it too
                os.truncate(self._path, size)
            raise StorageLost(self._lost) from None
        return [log["sum"] for log in sealed], link

    def _beyond(self, link: Link) -> Iterator[tuple[dict[str, Any], Link]]:
        """The file's lines after `link`; most of the time there are none, and it is not opened."""
        if self._path.stat().st_size > link.offset:
            with self._path.open("rb") as stream:
                yield from read_chain(stream, link)


def open_storage(
    folder: Path, url: str | None, wait_s: float = 0.0, guard: Guard = lambda: None
) -> BaseStorage:
    """Open the storage for reading and writing; a file is created where there is none.

    Once open, a database that does not answer is asked again for `wait_s` seconds. `guard` is
    called before every write. Raises InputError if a database does not answer at once. The URL's
    password is never shown.
    """
    if url is None:
        try:
            return JournalStorage(EnduringJournal(folder / JOURNAL, guard))
        except DamagedChain as error:
            raise InputError(
                f"{find_damage(folder / JOURNAL) or error}; laser-search resume {folder} moves the "
                "damaged file aside, continues from there, and takes the results of trials that it "
                "starts again from their outcome files where these are intact"
            ) from None
    # SQLAlchemy takes half a second to import, in every worker too, and a file needs none.
    from search.study.database import EnduringDatabase, database_url

    try:
        return EnduringDatabase(database_url(url), wait_s, guard)
    except ImportError as error:
        raise InputError(
            f"storage {hide_secrets(url, url)} needs a driver that is not installed ({error}); "
            "for PostgreSQL install laser-search[postgresql]"
        ) from None
    except Exception as error:  # SQLAlchemy and drivers raise many kinds
        reason = hide_secrets(words_of(error), url)
        raise InputError(f"storage {hide_secrets(url, url)} cannot be opened: {reason}") from None
