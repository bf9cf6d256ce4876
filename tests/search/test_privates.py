"""Optuna's private names: there in the version that was checked, and borne where they are not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage

from search import privates
from search.privates import id_in_memory, storage_of, tpe_parts, trial_id, trial_model
from search.strategies.shared_tpe import Look, SharedTPE


def test_every_private_name_is_there_in_the_version_that_was_checked() -> None:
    assert version("optuna").startswith(f"{privates.CHECKED}."), (
        "look through search/privates.py with this Optuna, and note its version there"
    )
    assert tpe_parts(SharedTPE(0, Look())) is not None
    assert all(hasattr(RDBStorage, name) for name in privates.DATABASE_METHODS)
    assert trial_model() is not None
    study = optuna.create_study()
    trial = study.ask()
    assert {"_storage"} <= vars(study).keys() and {"_trial_id"} <= vars(trial).keys()


HIDE = """
import optuna, optuna.samplers._tpe.sampler as sampler, optuna.storages._rdb.models as models
from optuna.storages import RDBStorage
del sampler._split_trials, sampler.default_gamma, models.TrialModel
for name in {methods}: delattr(RDBStorage, name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster.cli", "search.cli", "search.study.study_record"])
def test_a_rename_breaks_no_import(name: str) -> None:
    """So `status` and all other commands go on."""
    assert find_spec(name) is not None
    hide = HIDE.format(methods=[m for m in privates.DATABASE_METHODS if m in vars(RDBStorage)])
    program = f"{hide}\nimport {name}\nfrom search.strategies.registry import make_strategy"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def values(make) -> list[float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for seed in range(16):
        study.sampler = make(seed)
        trial = study.ask()
        study.tell(trial, (trial.suggest_float("x", 0, 1) - 0.3) ** 2)
    return [trial.params["x"] for trial in study.trials]


def test_without_them_tpe_draws_the_same(monkeypatch) -> None:
    look = Look()
    shared = values(lambda seed: SharedTPE(seed, look))
    assert look.taken
    monkeypatch.setattr("search.strategies.shared_tpe.tpe_parts", lambda sampler: None)
    alone = Look()
    assert values(lambda seed: SharedTPE(seed, alone)) == shared
    assert not alone.taken
    assert values(lambda seed: TPESampler(seed=seed)) == shared


@pytest.mark.parametrize("name", ["_split_trials", "default_gamma"])
def test_a_part_that_is_missing_is_noticed(name: str, monkeypatch) -> None:
    monkeypatch.delattr(f"optuna.samplers._tpe.sampler.{name}")
    assert tpe_parts(SharedTPE(0, Look())) is None


class Bare:
    """A trial, or a study, of an Optuna without the attributes."""

    number = 1


def test_ids_are_asked_for_where_no_attribute_says_them() -> None:
    study = optuna.create_study(study_name="s")
    trials = [study.ask() for _ in range(3)]
    storage = storage_of(study, study._storage)
    assert storage_of(Bare(), storage) is storage
    study_id = storage.get_study_id_from_name("s")
    assert trial_id(Bare(), storage, study_id) == trial_id(trials[1], storage, study_id)
    assert id_in_memory(Bare()) == id_in_memory(trials[1])
