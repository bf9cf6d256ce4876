"""Optuna's private names that are used, each with what happens where it is no more.

Checked with Optuna 5.0 (tests/search/test_privates.py). None is looked up at import, so that a
rename costs what its entry says, and no more. The methods with an underscore of our subclasses of
TPESampler and RDBStorage belong to the list too: renamed, they are never called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial

CHECKED = "5.0"

TPE_METHODS = (
    "_sample",
    "_build_parzen_estimator",
    "_compare",
    "_compute_acquisition_func",
    "_n_ei_candidates",
    "_rng",
)
"""Of TPESampler, for looks that draws share. Without one each draw is Optuna's own: the same
values, more slowly."""

DATABASE_METHODS = (
    "_create_new_trial",
    "_get_prepared_new_trial",
    "_get_trials",
    "_set_trial_param",
)
"""Of RDBStorage, to ask a database again. Without one that step fails at once when the database is
away, and the driver ends; a resume goes on."""


@dataclass(frozen=True)
class TpeParts:
    """How TPE divides trials into good ones and others: `split` by a count, `gamma` the count."""

    split: Callable[..., tuple[list[FrozenTrial], list[FrozenTrial]]]
    gamma: Callable[[int], int]


def tpe_parts(sampler: object) -> TpeParts | None:
    """What looks are made of; None where this Optuna lacks a part of it."""
    try:
        module: Any = import_module("optuna.samplers._tpe.sampler")
        found = TpeParts(module._split_trials, module.default_gamma)
    except (ImportError, AttributeError):
        return None
    has_all = all(hasattr(sampler, name) for name in TPE_METHODS)
    return found if has_all and hasattr(optuna.Study, "_get_trials") else None


def trial_model() -> Any:
    """The table of trials, to find one whose acknowledgement was lost; None: it is not looked for.

    Then a trial may be in the storage twice after the database was away in that moment.
    """
    try:
        return import_module("optuna.storages._rdb.models").TrialModel
    except (ImportError, AttributeError):
        return None


def storage_of(study: optuna.Study, given: BaseStorage) -> BaseStorage:
    """What a study made of the storage that it was given: a database with a cache before it."""
    found: BaseStorage = getattr(study, "_storage", given)
    return found


def trial_id(trial: Trial | FrozenTrial, storage: BaseStorage, study_id: int) -> int:
    """A trial's id in its storage; without the attribute it is asked for."""
    known: int | None = getattr(trial, "_trial_id", None)
    if known is not None:
        return known
    return storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)


def id_in_memory(trial: Trial | FrozenTrial) -> int:
    """A trial's id in a storage that is in memory and holds one study: there it is its number."""
    found: int = getattr(trial, "_trial_id", trial.number)
    return found
