"""Where the Optuna study lives: a journal file in the study folder, or a database by URL."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage

from search.durable import write_bytes
from search.study.chain import DamagedChain, find_damage
from search.study.enduring import EnduringDatabase, EnduringJournal, Guard
from tasks.errors import InputError
from tasks.foreign import words_of
from tasks.secrets import hide_secrets

JOURNAL = "study.journal"


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
                f"{find_damage(folder / JOURNAL) or error}; laser-search resume {folder} sets the "
                "damaged file aside, goes on from there, and takes the results of trials that it "
                "begins anew from their outcome files where these are whole"
            ) from None
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


def database_url(url: str) -> str:
    """`url` with the driver that the extra brings: plain postgresql:// may mean another one."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


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
