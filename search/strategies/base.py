"""What every strategy is given and gives: the study so far in, the next composition out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.cuts.refs import MatrixRef
from search.space import Space
from search.weights.spectra import Spectrum

BASELINE_NUMBER = -1


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial as strategies see it; the unedited model is number `BASELINE_NUMBER`.

    `state` RUNNING: in flight, and nothing is known of it. `values` is what is maximised, empty
    unless COMPLETE. `steps` are the scores after each chunk, `violations` how far each floor is
    missed (above 0: the trial cannot win). `soft_score`: what it is ranked by where that is not
    its value, of a trial that a race stopped too (see `TrialRecord`).
    """

    number: int
    composition: Composition
    effect: str
    state: TrialState = TrialState.RUNNING
    values: tuple[float, ...] = ()
    log_loss: float = 0.0
    steps: tuple[tuple[int, float], ...] = ()
    violations: Mapping[str, float] = field(default_factory=dict)
    soft_score: float | None = None

    @property
    def feasible(self) -> bool:
        """Whether every floor is kept, as far as is known."""
        return all(violation <= 0 for violation in self.violations.values())

    @property
    def counts(self) -> bool:
        """Whether it was evaluated to the end and keeps every floor."""
        return self.state == TrialState.COMPLETE and self.feasible

    @property
    def ranked_by(self) -> float:
        """The soft score, else the value. Of a complete trial."""
        return self.values[0] if self.soft_score is None else self.soft_score

    @property
    def merit(self) -> tuple[float, float]:
        """What it is ranked by, then lower log-loss, as LASER does; -inf unless it `counts`."""
        if not self.counts:
            return (-float("inf"), -float("inf"))
        return (self.ranked_by, -self.log_loss)


class History:
    """A study's trials by number, and by what they do to the model. It only grows.

    `budget`: finished trials that the study asks for. `room`: how far the unedited model is above
    each floor, in the units of `Tried.violations`.
    """

    def __init__(
        self,
        max_ranks: Mapping[MatrixRef, int],
        budget: int,
        spectra: Mapping[MatrixRef, Spectrum] | None = None,
    ) -> None:
        """Empty. `max_ranks`: min(out, in) of every matrix that may be cut.

        `spectra` of those whose levels are read by a rule that needs them.
        """
        self.spectra = {ref: one.values.tolist() for ref, one in (spectra or {}).items()}
        self._shapes = {ref: one.shape for ref, one in (spectra or {}).items()}
        self.budget = budget
        self.spent = 0
        self.baseline: Tried | None = None
        self.room: Mapping[str, float] = {}
        self.max_ranks = max_ranks
        self._trials: list[Tried] = []
        self._numbers: dict[str, int] = {}
        self._open: dict[int, None] = {}

    def put(self, tried: Tried) -> None:
        """Add the next trial, or what became of one that is in flight."""
        if tried.number == BASELINE_NUMBER:
            self.baseline = tried
            return
        if tried.number == len(self._trials):
            self._trials.append(tried)
            self._numbers[tried.effect] = tried.number
        else:
            self._trials[tried.number] = tried
        if tried.state.is_finished():
            self.spent += 1
            self._open.pop(tried.number, None)
        else:
            self._open[tried.number] = None

    def __len__(self) -> int:
        """Trials so far; the next one has this number."""
        return len(self._trials)

    def __iter__(self) -> Iterator[Tried]:
        """All trials in order of number."""
        return iter(self._trials)

    def __getitem__(self, number: int) -> Tried:
        """The trial of that number."""
        return self._trials[number]

    @property
    def in_flight(self) -> Sequence[int]:
        """Numbers of the trials in flight, ascending."""
        return sorted(self._open)

    def effect(self, composition: Composition) -> str:
        """What a composition does to the model; see `Composition.effect`."""
        return composition.effect(self.max_ranks, self.spectra, self._shapes)

    def find(self, composition: Composition) -> Tried | None:
        """The trial, perhaps in flight, or the baseline, that has a composition's effect."""
        effect = self.effect(composition)
        if not effect:
            return self.baseline
        number = self._numbers.get(effect)
        return None if number is None else self._trials[number]

    def is_new(self, composition: Composition) -> bool:
        """Whether a composition does something, and nothing that was or is being tried."""
        effect = self.effect(composition)
        return bool(effect) and effect not in self._numbers

    def best(self) -> Tried | None:
        """The best trial that counts, None if none does; the earlier of equals."""
        found = max(self._trials, key=lambda tried: tried.merit, default=None)
        return found if found is not None and found.counts else None


@dataclass(frozen=True)
class Setting:
    """What a strategy knows before the first trial.

    `objectives`: values of a trial. `screen`: the change of the loss that a gradient predicts by
    single cut, lower is better. `costs`: the rise of the loss of general text, in nats, that is
    predicted by single cut; empty where it has no limit. `spectra`: singular values of the
    matrices of the space, `threshold` the rule that divides them into signal and noise.
    `by_log_loss`: whether near trials are told apart by their log-loss, for which the score is too
    coarse.
    """

    space: Space
    max_ranks: Mapping[MatrixRef, int]
    seed: int = 0
    objectives: int = 1
    screen: Mapping[Intervention, float] | None = None
    costs: Mapping[Intervention, float] = field(default_factory=dict)
    spectra: Mapping[MatrixRef, Spectrum] | None = None
    threshold: str = "laser-rmt"
    by_log_loss: bool = False


class Strategy(ABC):
    """What to try next. Keeps nothing that the history does not say, save to be faster.

    Asked again with the same history, also by another process, it suggests the same; randomness is
    drawn from the seed and the number of the trial. A composition has at most one intervention per
    matrix, is of the setting's space (or was given by the user) and `History.is_new`.

    One that is named in a configuration takes a `Setting` alone, and says of itself: `name`, its
    spelling; `wants_screen`, whether a screen orders its candidates; `needs_screen`, whether it can
    do nothing without, should a model or task allow none; `wants_spectra`, whether it reads
    singular values; `takes_budget`, whether it proposes allocations where the space has a budget.
    What it does not want, the setting lacks.
    """

    name: ClassVar[str] = ""
    wants_screen: ClassVar[bool] = False
    needs_screen: ClassVar[bool] = False
    wants_spectra: ClassVar[bool] = False
    takes_budget: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        """Over the space of `setting`."""
        self._setting = setting

    @abstractmethod
    def suggest(self, history: History) -> Composition | None:
        """The next trial's composition.

        None while trials are in flight: what follows depends on them. None with nothing in flight:
        there is nothing left to try, and the search ends.
        """
        ...
