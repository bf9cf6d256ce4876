"""Optuna's TPE with one look at the history for several draws.

A draw of TPE orders all finished trials and builds densities over them, which takes tens of
milliseconds once there are thousands; a composition takes several draws, and a wide cluster asks
for dozens of compositions a second. All draws of one composition see the same history, so one look
serves them and changes nothing. With many trials in flight a look serves several compositions too:
what is in flight tells TPE little, and what one of them would have learnt from the few that ended
meanwhile is less than what waits for an answer anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from search.privates import TpeParts, tpe_parts

SHARE = 4
"""A look serves as many compositions as a quarter of those in flight, at least one."""


@dataclass
class Look:
    """The history as it was at one look: the good trials, the others, and their densities."""

    below: list[FrozenTrial] = field(default_factory=list)
    above: list[FrozenTrial] = field(default_factory=list)
    densities: dict[tuple[str, ...], tuple[Any, Any]] = field(default_factory=dict)
    serves: int = 0
    served: set[int] = field(default_factory=set)
    taken: int = 0

    def is_over(self, number: int) -> bool:
        """Whether the trial `number` needs a new look."""
        return number not in self.served and len(self.served) >= self.serves


class SharedTPE(TPESampler):
    """A seeded TPE whose draws are those of Optuna's, from a `look` that others share.

    Where Optuna's parts for that are not to be had, every draw looks for itself.
    """

    def __init__(self, seed: int, look: Look) -> None:
        """`look` is brought up to date when its turn is over."""
        super().__init__(seed=seed)
        self._look = look

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        parts = tpe_parts(self)
        if parts is None:
            return super()._sample(study, trial, search_space)
        look = self._look
        if look.is_over(trial.number):
            self._take(study, trial, parts)
        look.served.add(trial.number)
        names = tuple(search_space)
        if names not in look.densities:
            look.densities[names] = (
                self._build_parzen_estimator(study, search_space, look.below, handle_below=True),
                self._build_parzen_estimator(study, search_space, look.above, handle_below=False),
            )
        below, above = look.densities[names]
        samples = below.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, below, above))
        return {name: kind.to_external_repr(best[name]) for name, kind in search_space.items()}

    def _take(self, study: optuna.Study, trial: FrozenTrial, parts: TpeParts) -> None:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = study._get_trials(deepcopy=False, states=states, use_cache=False)
        others = [other for other in trials if other.number != trial.number]
        in_flight = sum(other.state == TrialState.RUNNING for other in others)
        look = self._look
        look.below, look.above = parts.split(study, others, parts.gamma(len(others) - in_flight))
        look.densities.clear()
        look.served.clear()
        look.serves = max(1, in_flight // SHARE)
        look.taken += 1
