"""Where the Optuna study lives: a journal file in the study folder, or a database by URL.

Both lose nothing when a disk is full or a database is gone for a while. A write that fails is the
end of writing for a file, whose torn line is taken back; a database is asked again until it
answers. What cannot be mended raises StorageLost, and every write after it, so that nothing is
recorded behind a gap.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError

from search.privates import trial_model
from search.study.journal import JOURNAL, DamagedChain, Link, find_damage, read_chain
from tasks.errors import InputError
from tasks.foreign import words_of
from tasks.secrets import hide_secrets

log = logging.getLogger(__name__)
T = TypeVar("T")
Guard = Callable[[], None]

LONGEST_PAUSE_S = 5.0


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
    first lines, as if every line were written by itself. For one writer.
    """

    def __init__(self, path: Path, guard: Guard) -> None:
        """`guard` raises StorageLost when another driver has taken the study over."""
        super().__init__(str(path))
        self._path = path
        self._guard = guard
        self._lost: str | None = None
        self._depth = 0
        self._waiting: list[dict[str, Any]] = []
        self._link = Link()  # of what was read or written last

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, lines wait; at the end they are written at once. Raises StorageLost."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._waiting:
                waiting, self._waiting = self._waiting, []
                self._append(waiting)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any]]:
        """The lines from a number on, with those that wait. Raises DamagedChain."""
        # Those that wait are read by their numbers too, before they are written and again after.
        link = self._link if self._link.number <= log_number_from else Link()
        with self._path.open("rb") as stream:
            for log, after in read_chain(stream, link):
                self._link = link = after
                if link.number > log_number_from:
                    yield log
        yield from self._waiting[max(0, log_number_from - link.number) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines or nothing, at once or at the end of the group. Raises StorageLost."""
        if self._depth:
            self._waiting += logs
        else:
            self._append(logs)

    def _append(self, logs: list[dict[str, Any]]) -> None:
        if self._lost is not None:
            raise StorageLost(self._lost)
        self._guard()
        size = self._path.stat().st_size
        try:
            link = self._end()
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

    def _end(self) -> Link:
        """Where the chain of the file's lines ends. Raises DamagedChain, OSError."""
        link = self._link
        with self._path.open("rb") as stream:
            for _, after in read_chain(stream, link):
                link = after
        return link


def _is_down(error: Exception) -> bool:
    """Whether a database may answer later."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError)


def _asked_again(name: str, *, writes: bool) -> Any:
    """RDBStorage's method of that name, looked up when it is called."""

    def call(self: EnduringDatabase, *arguments: Any, **options: Any) -> Any:
        method = getattr(super(EnduringDatabase, self), name)
        return self.insist(lambda: method(*arguments, **options), writes)

    return call


class EnduringDatabase(RDBStorage):
    """A database that is asked again for up to `wait_s` seconds while it does not answer.

    A write whose acknowledgement was lost is not made twice: attributes, parameters and reports are
    set to the same value again, a state that is there already counts as told, and a trial that was
    created is found by its number. For one driver at a time.
    """

    def __init__(self, url: str, wait_s: float, guard: Guard) -> None:
        """Open it once. Raises what SQLAlchemy raises, without waiting."""
        super().__init__(url, engine_kwargs={"pool_pre_ping": True})
        self._shown = url
        self._wait_s = wait_s
        self._guard = guard
        self._lost: str | None = None
        self._created: dict[int, int] = {}
        self._attempts = 0

    def insist(self, ask: Callable[[], T], writes: bool) -> T:
        """What `ask` returns once the database answers. Raises StorageLost after `wait_s`."""
        if self._lost is not None:
            raise StorageLost(self._lost)
        deadline, pause_s = time.monotonic() + self._wait_s, 0.1
        while True:
            try:
                if writes:
                    self._guard()  # it may ask the same database
                return ask()
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                if not _is_down(error):
                    raise
                reason = hide_secrets(words_of(error.__cause__ or error), self._shown)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self._lost = f"the storage has not answered for {self._wait_s:g} s: {reason}"
                    raise StorageLost(self._lost) from None
                if pause_s == 0.1:
                    log.warning("the storage does not respond: %s; retrying", reason)
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        if study_id not in self._created:
            self._created[study_id] = self.get_n_trials(study_id) - 1
        self._attempts = 0
        trial = self.insist(
            lambda: super(EnduringDatabase, self)._create_new_trial(study_id, template_trial), True
        )
        self._created[study_id] = trial.number
        return trial

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> Any:
        self._attempts += 1
        model = trial_model()
        if self._attempts > 1 and model is not None:  # the attempt before may have been recorded
            number = self._created[study_id] + 1
            found = session.query(model).filter_by(study_id=study_id, number=number).one_or_none()
            if found is not None:
                return found
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Set the state; once more if the acknowledgement was lost. Raises StorageLost."""
        attempts = 0

        def tell() -> bool:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and self.get_trial(trial_id).state == state:
                return True
            return super(EnduringDatabase, self).set_trial_state_values(trial_id, state, values)

        return self.insist(tell, True)

    set_study_user_attr = _asked_again("set_study_user_attr", writes=True)
    set_study_system_attr = _asked_again("set_study_system_attr", writes=True)
    _set_trial_param = _asked_again("_set_trial_param", writes=True)
    set_trial_intermediate_value = _asked_again("set_trial_intermediate_value", writes=True)
    set_trial_user_attr = _asked_again("set_trial_user_attr", writes=True)
    set_trial_system_attr = _asked_again("set_trial_system_attr", writes=True)
    get_study_user_attrs = _asked_again("get_study_user_attrs", writes=False)
    get_study_system_attrs = _asked_again("get_study_system_attrs", writes=False)
    get_trial = _asked_again("get_trial", writes=False)
    _get_trials = _asked_again("_get_trials", writes=False)


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
