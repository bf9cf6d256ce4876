"""A study's storage in a database, by URL: asked again until it answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError

from search.privates import trial_model
from search.study.storages import Guard, StorageLost
from tasks.foreign import words_of
from tasks.secrets import hide_secrets

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_PAUSE_S = 5.0


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


def database_url(url: str) -> str:
    """`url` with the driver that the extra brings: plain postgresql:// may mean another one."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
