"""The Optuna study that holds a study's trials and facts, and the names of these facts in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.config import StudyConfig
from search.privates import storage_of, trial_id
from search.study.journal import JOURNAL
from search.study.storages import EnduringJournal, Guard, open_storage

BUDGET = "budget"
"""Finished trials asked for, bounded by what the space holds."""

METRICS = "metrics"
"""Every task's metric by its label."""

SHAPES = "shapes"
"""Within a budget: the shape of every matrix of the space by its address."""

ENDED = "ended"
"""Why no further trial begins although more are asked for, empty if one may."""

ELAPSED = "elapsed_s"
"""Seconds of driving it, over all runs, where a rule asks for them."""

WALL = "wall_s"
"""Seconds of wall time by phase, over all runs, as of the last finished job."""


class OptunaStudy:
    """One study in a storage. Writing raises StorageLost where that is no longer possible."""

    def __init__(self, study: optuna.Study, storage: BaseStorage) -> None:
        """`storage` is the one that `study` was given."""
        self._study = study
        self._storage = storage_of(study, storage)
        self._study_id = self._storage.get_study_id_from_name(study.study_name)

    @staticmethod
    def open(folder: Path, name: str, config: StudyConfig, guard: Guard) -> OptunaStudy:
        """The study `name` of `folder` for its driver, made if need be; see `open_storage`.

        From then on Optuna says errors alone in this process. Raises InputError.
        """
        # Not a line per trial, nor a warning per conditional slot, which TPE draws by itself.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = open_storage(folder, config.storage, config.cluster.storage_wait_s, guard)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            directions=[StudyDirection.MAXIMIZE] * config.search.objectives,
            sampler=optuna.samplers.RandomSampler(seed=0),  # draws nothing: strategies propose
            pruner=_make_pruner(config.search.pruner),
        )
        return OptunaStudy(study, storage)

    @staticmethod
    def find(folder: Path, name: str, config: StudyConfig) -> OptunaStudy | None:
        """The study `name` of `folder` for a reader, None if there is none. Raises InputError."""
        if config.storage is None and not (folder / JOURNAL).exists():
            return None
        storage = open_storage(folder, config.storage)
        if name not in {study.study_name for study in storage.get_all_studies()}:
            return None
        return OptunaStudy(optuna.load_study(study_name=name, storage=storage), storage)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the study itself, by BUDGET and so on."""
        return self._study.user_attrs

    def note(self, key: str, value: Any) -> None:
        """Set one of `facts`."""
        self._study.set_user_attr(key, value)

    def together(self) -> AbstractContextManager[None]:
        """Within, what is recorded may wait for the end; a database records at once even so."""
        return nullcontext() if (journal := self._journal) is None else journal.together()

    def later(self) -> AbstractContextManager[None]:
        """Within, what is recorded may wait for what is recorded next, unless in a database."""
        return nullcontext() if (journal := self._journal) is None else journal.later()

    @property
    def _journal(self) -> EnduringJournal | None:
        backend = getattr(self._storage, "_backend", None)
        return backend if isinstance(backend, EnduringJournal) else None

    def trials(self) -> list[FrozenTrial]:
        """All trials in order of number, not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def stored(self, trial: Trial) -> FrozenTrial:
        """What is stored of a trial in flight."""
        return self._storage.get_trial(trial_id(trial, self._storage, self._study_id))

    def begin(
        self,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> Trial:
        """A new trial, recorded in one write, so that no kill leaves half of it."""
        begun = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs=dict(attributes),
        )
        # Not optuna.Study.add_trial, which does the same and does not say which trial it made.
        made = self._storage.create_new_trial(self._study_id, template_trial=begun)
        return Trial(self._study, made)

    def adopt(self, trial: FrozenTrial) -> Trial:
        """A trial that an earlier driver began: it keeps its number and budget."""
        return Trial(self._study, trial_id(trial, self._storage, self._study_id))

    def tell(self, trial: Trial, values: list[float] | None, state: TrialState) -> FrozenTrial:
        """End a trial in flight; returns what is stored of it, not to be changed.

        One that was stopped early has its last score that is a number, as `optuna.Study.tell` has
        it, which is not called: it copies every trial, which costs more than storing it.
        """
        made = trial_id(trial, self._storage, self._study_id)
        if state == TrialState.PRUNED:
            steps = self._storage.get_trial(made).intermediate_values
            last = steps[max(steps)] if steps else math.nan
            values = None if math.isnan(last) else [last]
        self._storage.set_trial_state_values(made, state, values)
        return self._storage.get_trial(made)


def _make_pruner(name: str) -> optuna.pruners.BasePruner:
    """The pruner of a configuration, over the scores after each chunk of examples."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=8)
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()
