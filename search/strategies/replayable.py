"""A sampler whose draws depend on the seed, the history and the trial's number alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

DUPLICATE_OF = "duplicate_of"
"""User attribute of a trial that was answered from the record: the number of the one evaluated."""


class ReplayableSampler(BaseSampler):
    """Wraps a seeded Optuna sampler so that a resumed study goes on as if never interrupted.

    Optuna keeps no random state in the storage: a sampler restarted with its seed repeats its first
    draws, one without a seed diverges. Here every draw comes from a fresh generator keyed by
    (seed, trial number, parameter), so it is the same whichever process makes it, even when a trial
    was interrupted between two parameters.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        """`make` builds the wrapped sampler from a seed in [0, 2**31)."""
        self._make = make
        self._seed = seed
        self._searcher = make(0)  # infers spaces only, which draws nothing; keeps their cache

    def _at(self, trial: FrozenTrial, purpose: str) -> int:
        text = f"{self._seed}/{trial.number}/{purpose}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Parameters that are drawn together."""
        return self._searcher.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the joint parameters."""
        if not search_space:
            return {}
        sampler = self._make(self._at(trial, ""))
        return sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one parameter."""
        sampler = self._make(self._at(trial, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the wrapped sampler record what it keeps with a trial."""
        self._searcher.after_trial(study, trial, state, values)


def is_duplicate(trial: FrozenTrial) -> bool:
    """Whether a trial was answered from the record of another."""
    return trial.user_attrs.get(DUPLICATE_OF) is not None
