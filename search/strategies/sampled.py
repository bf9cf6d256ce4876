"""Optuna's samplers over compositions (``tpe``, ``gp``, ``nsga-ii``, ...).

The sampler draws from a study in memory that mirrors the history, each composition written as
parameters by an `Encoding`. So the durable study holds compositions, whoever proposed them, and no
sampler's state; a sampler learns from every trial that its encoding can write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.cuts.composition import Composition
from search.privates import id_in_memory
from search.space import Choice
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.encodings import Encoding
from search.strategies.novelty import unseen
from search.strategies.samplers import SamplerKind

TIE = 1e-9
"""What a nat of log-loss weighs beside the score, so that it decides between equals alone."""


class KeyedSampler(BaseSampler):
    """A sampler whose draws depend on the seed, the history and the trial's number alone.

    A sampler restarted with its seed would repeat its first draws. Here every draw comes from a
    fresh one keyed by (seed, number, parameter), so it is the same whichever process makes it.
    """

    def __init__(self, kind: SamplerKind, seed: int) -> None:
        """Wrap samplers of `kind`."""
        self.number = 0
        self._make = kind.family()
        self._seed = seed
        self._searcher = kind.make(0)  # infers spaces only, which draws nothing; keeps their cache

    def _keyed(self, purpose: str) -> BaseSampler:
        text = f"{self._seed}/{self.number}/{purpose}".encode()
        digest = hashlib.blake2b(text, digest_size=4).digest()
        return self._make(int.from_bytes(digest, "big") >> 1)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Parameters that are drawn together."""
        return self._searcher.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the joint parameters."""
        if not search_space:
            return {}
        return self._keyed("").sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one parameter."""
        sampler = self._keyed(param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the wrapped sampler record what it keeps with a trial."""
        self._searcher.after_trial(study, trial, state, values)


@dataclass(frozen=True)
class _Drawn:
    """What was drawn last, in the mirror's `trial`."""

    number: int
    trial: Trial
    choices: list[Choice]
    effect: str


class Sampled(Strategy):
    """Proposes what an Optuna sampler draws, or a new neighbour of it if that was tried.

    A sampler that has converged proposes what is known already; then its neighbourhood is searched,
    farther out at every attempt (docs/decisions/0003).
    """

    takes_budget = True

    def __init__(self, setting: Setting, kind: SamplerKind, encoding: Encoding) -> None:
        """Draw compositions of the setting's space."""
        self._setting = setting
        self._kind = kind
        self._encoding = encoding
        self._sampler = KeyedSampler(kind, setting.seed)
        self._study: optuna.Study | None = None
        self._mirrored: list[int] = []  # the mirror's trial id of each trial, -1 for none
        self._open: set[int] = set()
        self._drawn: _Drawn | None = None

    def suggest(self, history: History) -> Composition | None:
        """What the sampler draws next."""
        self._mirror(history)
        choices = self._draw(history)
        composition = self._setting.space.cut(choices)
        if history.is_new(composition):
            return composition
        return unseen(self._setting.space, history, self._setting.seed, choices)

    # The study in memory ---------------------------------------------------------------------

    def _mirror(self, history: History) -> None:
        for number in sorted(self._open):
            self._close(history[number])
        for number in range(len(self._mirrored), len(history)):
            tried = history[number]
            if self._kind.stateful and self._drawn is None:
                self._draw(history, number)  # as it was drawn when this trial began
            self._add(tried)
            self._close(tried)

    def _opened(self) -> optuna.Study:
        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            directions = [StudyDirection.MAXIMIZE] * self._setting.objectives
            self._study = optuna.create_study(directions=directions, sampler=self._sampler)
        return self._study

    def _draw(self, history: History, number: int | None = None) -> list[Choice]:
        """Draw the parameters of the trial with this number, by default the next."""
        number = len(history) if number is None else number
        if self._drawn is not None:
            if self._kind.stateful and self._drawn.number == number:
                return self._drawn.choices
            self._discard(self._drawn.trial)
        self._sampler.number = number
        trial = self._opened().ask()
        choices = self._encoding.draw(partial(_suggest, trial))
        effect = history.effect(self._setting.space.cut(choices))
        self._drawn = _Drawn(number, trial, choices, effect)
        return choices

    def _discard(self, trial: Trial) -> None:
        self._opened().tell(trial, state=TrialState.FAIL)  # samplers pass over failures
        self._drawn = None

    def _add(self, tried: Tried) -> None:
        study = self._opened()
        drawn, self._drawn = self._drawn, None
        if drawn is not None:
            if self._kind.stateful and (drawn.number, drawn.effect) == (tried.number, tried.effect):
                self._mirrored.append(id_in_memory(drawn.trial))
                self._open.add(tried.number)
                return
            self._discard(drawn.trial)
        choices = self._setting.space.choices(tried.composition)
        if choices is None or len(choices) > self._setting.space.max_interventions:
            self._mirrored.append(-1)
            return
        written = self._encoding.write(choices)
        study.add_trial(
            create_trial(
                state=tried.state,
                values=_values(tried),
                params={name: value for name, (value, _) in written.items()},
                distributions={name: kind for name, (_, kind) in written.items()},
                intermediate_values=dict(tried.steps),
                constraints=dict(tried.violations),
            )
        )
        self._mirrored.append(id_in_memory(study.get_trials(deepcopy=False)[-1]))
        if not tried.state.is_finished():
            self._open.add(tried.number)

    def _close(self, tried: Tried) -> None:
        if not tried.state.is_finished() or tried.number not in self._open:
            return
        self._open.remove(tried.number)
        study = self._opened()
        trial = Trial(study, self._mirrored[tried.number])
        for step, score in tried.steps:
            trial.report(score, step)
        for key, violation in tried.violations.items():
            trial.set_constraint(key, violation)
        study.tell(trial, _values(tried), state=tried.state)


def _values(tried: Tried) -> list[float] | None:
    """What the sampler is told: of one objective the rank, ties broken by log-loss."""
    if len(tried.values) == 1:
        return [tried.ranked_by - TIE * tried.log_loss]
    return list(tried.values) or None


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Draw one parameter of an Optuna trial."""
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        return trial.suggest_float(name, low, high, log=distribution.log)
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    raise TypeError(f"no way to draw from {distribution}")
