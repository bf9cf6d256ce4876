"""Optuna's samplers, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from search.strategies.shared_tpe import Look, SharedTPE
from tasks.errors import InputError


@dataclass(frozen=True)
class SamplerKind:
    """How to build a sampler from a seed.

    `stateful`: it keeps what it learned beside the trials it drew (a generation, a distribution),
    so that only drawing them again in order brings it back. `single`: it maximises one value alone.
    `needs`: an optional library. `shared`: where the samplers of one history share work.
    """

    of_seed: Callable[[int], BaseSampler]
    stateful: bool = False
    single: bool = False
    needs: str = ""
    shared: Callable[[], Callable[[int], BaseSampler]] | None = None

    def family(self) -> Callable[[int], BaseSampler]:
        """Samplers by seed that may share what they learn from one history."""
        return self.make if self.shared is None else _quiet(self.shared())

    def make(self, seed: int) -> BaseSampler:
        """A sampler with a seed in [0, 2**31)."""
        return _quiet(self.of_seed)(seed)

    def check(self, name: str, objectives: int) -> None:
        """Raise InputError if it cannot maximise that many values, or its library is absent."""
        if self.single and objectives > 1:
            raise InputError(
                f"search.strategy {name!r} optimises one value; for pareto use nsga-ii or tpe"
            )
        if not self.needs:
            return
        try:
            import_module(self.needs)
        except ImportError:
            raise InputError(
                f"search.strategy {name!r} needs the library {self.needs}, which is not installed; "
                f"install laser-search[{self.needs}]"
            ) from None


def _quiet(of_seed: Callable[[int], BaseSampler]) -> Callable[[int], BaseSampler]:
    def make(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of use to who calls Optuna
            return of_seed(seed)

    return make


def _tpe() -> Callable[[int], BaseSampler]:
    # Bergstra et al. 2011. Optuna's defaults: multivariate, a constant liar for what is in flight.
    look = Look()
    return lambda seed: SharedTPE(seed, look)


def _gp(seed: int) -> BaseSampler:
    class OneThread(optuna.samplers.GPSampler):
        """On its tiny tensors, threads wait for one another, and for those of the workers."""

        def sample_relative(self, *given: Any) -> dict[str, Any]:
            import torch

            before = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                return super().sample_relative(*given)
            finally:
                torch.set_num_threads(before)

    return OneThread(seed=seed)


SAMPLERS: dict[str, SamplerKind] = {
    "tpe": SamplerKind(lambda seed: SharedTPE(seed, Look()), shared=_tpe),
    "gp": SamplerKind(_gp),
    "qmc": SamplerKind(lambda seed: optuna.samplers.QMCSampler(seed=seed), stateful=True),
    "nsga-ii": SamplerKind(lambda seed: optuna.samplers.NSGAIISampler(seed=seed), stateful=True),
    "nsga-iii": SamplerKind(lambda seed: optuna.samplers.NSGAIIISampler(seed=seed), stateful=True),
    "cma-es": SamplerKind(
        lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
        stateful=True,
        single=True,
        needs="cmaes",
    ),
}
