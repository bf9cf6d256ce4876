"""Where the Optuna study lives: a journal file in the study folder, or a database by URL."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from tasks.errors import InputError

JOURNAL = "study.journal"


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Open the storage for reading and writing; a file is created where there is none.

    Raises InputError if a database does not answer. The URL's password is never shown.
    """
    if url is None:
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    # Plain postgresql:// means psycopg2 to older versions of SQLAlchemy; the extra brings psycopg.
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise InputError(
            f"storage {hide_password(url)} needs a driver that is not installed ({error}); "
            "for PostgreSQL install laser-search[postgresql]"
        ) from None
    except Exception as error:  # SQLAlchemy and drivers raise many kinds
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"storage {hide_password(url)} cannot be opened: {hide_password(reason)}"
        ) from None


def mend_journal(folder: Path) -> None:
    """Undo what a kill inside an append leaves; call only while holding the study's lock.

    A stale lock would stall the next writer for 30 s. A torn last line reads well, but the next
    append would be glued to it and make the file unreadable.
    """
    journal = folder / JOURNAL
    with contextlib.suppress(FileNotFoundError):
        Path(f"{journal}.lock").unlink()
    if not journal.exists():
        return
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


def hide_password(text: str) -> str:
    """Replace the password of any URL in `text`."""
    return re.sub(r"(:[^:@\s]*):[^@\s]*@", r"\1:***@", text)
