"""How likely a composition is to keep the floors of a study, before it is tried.

What a cut costs is counted in shares of what a floor allows: at 1 the floor is reached. What was
measured counts as it was; what was not is what a screen predicts of general text, times what
measured cuts cost over what was predicted of them. A cut costs no less than a milder one of the
same matrix and no more than a stronger one, and costs of a composition add up (decision 0037).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from search.cuts.level import Level
from search.space import Choice, Site, Space
from search.strategies.base import History, Setting, Tried
from search.strategies.finished import Finished
from tasks.guarded import GENERAL_TEXT

_STANDARD = NormalDist()

LIKELY = 0.5
"""From this chance on a composition is expected to keep every floor."""

REFUSED = 0.05
"""A chance below this is none: a trial would be spent on what is known."""


@dataclass(frozen=True)
class Prior:
    """What is believed of predictions before anything is measured; see docs/log.md.

    `ratio`: of the cost to what is predicted. `spread`: of its logarithm; `near`: where another
    level of the same matrix was measured, `added`: of the sum of costs that are known. `weight`: as
    many measured cuts as the prior counts for. `least`: costs below this share are alike.
    """

    ratio: float = 0.6
    spread: float = 0.9
    near: float = 0.5
    added: float = 0.25
    weight: float = 3.0
    least: float = 0.05


class Limits:
    """What is known of the floors: by prediction, and from the trials so far."""

    def __init__(self, setting: Setting, prior: Prior = Prior()) -> None:
        """Nothing is measured. `setting`: its `costs` are predicted ones."""
        self._space: Space = setting.space
        self._costs = setting.costs
        self._prior = prior
        self._finished = Finished()
        self._allowed = 0.0
        self._by_site: dict[str, dict[Level, float]] = {}
        self._logs: dict[str, dict[Level, float]] = {}
        self._foreseen: dict[str, dict[Level, float | None]] = {}
        self._holds = bool(setting.costs)
        self._ratio, self._spread = math.log(prior.ratio), prior.spread
        self.version = 0

    def learn(self, history: History) -> None:
        """Take in what has finished. `version` rises where that may change a chance."""
        if not self._allowed and (allowed := _allowed(history)):
            self._allowed = allowed
            self._foreseen.clear()
            self.version += 1
        for tried in self._finished.next(history):
            self._note(tried, history)

    def _note(self, tried: Tried, history: History) -> None:
        used = share_used(tried, history)
        choices = self._space.choices(tried.composition)
        if used is None or choices is None or len(choices) != 1:
            return
        self._holds = True
        ((site, level),) = choices
        self._by_site.setdefault(site.name, {})[level] = used
        if (predicted := self._predicted(site, level)) is not None:
            own = self._logs.setdefault(site.name, {})
            own[level] = self._log(used) - self._log(predicted)
            self._fit()
        self.version += 1

    def _fit(self) -> None:
        """The ratio of costs to predictions, and its spread, the prior among the evidence."""
        prior = self._prior
        logs = [log for own in self._logs.values() for log in own.values()]
        first = math.log(prior.ratio)
        whole = prior.weight + len(logs)
        self._ratio = (prior.weight * first + math.fsum(logs)) / whole
        square = math.fsum((log - self._ratio) ** 2 for log in logs)
        self._spread = math.sqrt((prior.weight * prior.spread**2 + square) / whole)

    # What is asked -----------------------------------------------------------------------------

    def chance(
        self, choices: Sequence[Choice], before: Sequence[Choice] = (), used: float = 0
    ) -> float:
        """How likely these choices keep every floor, from 0 to 1.

        `before`: those of a trial that they differ little from, which used up the share `used`:
        then only what differs is reckoned.
        """
        if not self._holds:
            return 1.0
        new = [one for one in choices if one not in before] if before else choices
        sure = [self._sure(*one) for one in new]
        if False in sure:
            return 0.0
        if len(choices) == 1 and sure == [True]:
            return 1.0
        more = []
        for one in new:
            if (cost := self._cost(*one)) is None:
                return 0.5
            more.append(cost)
        gone = [self._cost(*one) for one in before if one not in choices]
        less = [cost[0] for cost in gone if cost is not None]
        known = max(0.0, used - math.fsum(less))
        total = max(self._prior.least, known + math.fsum([value for value, _ in more]))
        square = (self._prior.added * known) ** 2
        square += math.fsum([(value * spread) ** 2 for value, spread in more])
        spread = max(1e-3, math.sqrt(square) / total)
        return _STANDARD.cdf(-math.log(total) / spread)

    def is_settled(self, choice: Choice) -> bool:
        """Whether a single cut was measured, so that what is believed of it stays."""
        site, level = choice
        return level in self._by_site.get(site.name, ())

    def _sure(self, site: Site, level: Level) -> bool | None:
        """Whether a single cut is kept, as this level, a milder or a stronger one says; or None."""
        measured = self._by_site.get(site.name)
        if measured is None:
            return None
        if (own := measured.get(level)) is not None:
            return own <= 1
        if any(used > 1 and _is_milder(other, level) for other, used in measured.items()):
            return False
        kept = (used <= 1 and _is_milder(level, other) for other, used in measured.items())
        return True if any(kept) else None

    def _cost(self, site: Site, level: Level) -> tuple[float, float] | None:
        """The share that a single cut is expected to use up, and the spread of its logarithm."""
        prior, measured = self._prior, self._by_site.get(site.name, {})
        if (own := measured.get(level)) is not None:
            return max(0.0, own), prior.added
        low = max((u for o, u in measured.items() if _is_milder(o, level)), default=0.0)
        high = min((u for o, u in measured.items() if _is_milder(level, o)), default=math.inf)
        predicted = self._predicted(site, level)
        if predicted is None:
            bounds = [value for value in (low, high) if 0 < value < math.inf]
            return (max(bounds), prior.spread) if bounds else None
        ratio, spread = self._ratio, self._spread
        if near := self._logs.get(site.name):
            ratio, spread = (ratio + math.fsum(near.values())) / (1 + len(near)), prior.near
        expected = math.exp(self._log(predicted) + ratio)
        return min(max(expected, low), max(high, low)), spread

    def _predicted(self, site: Site, level: Level) -> float | None:
        """The share that a screen predicts; a group adds up."""
        known = self._foreseen.setdefault(site.name, {})
        if level not in known:
            costs = [self._costs.get(cut) for cut in site.cut(level)]
            given = [cost for cost in costs if cost is not None]
            whole = bool(self._allowed) and len(given) == len(costs)
            known[level] = math.fsum(given) / self._allowed if whole else None
        return known[level]

    def _log(self, share: float) -> float:
        return math.log(max(self._prior.least, share))


def share_used(tried: Tried, history: History) -> float | None:
    """The largest share of what a floor allows that a trial used up; None if that is not known.

    A floor that the unedited model breaks is none that a cut uses up.
    """
    shares = [
        1 + tried.violations[key] / max(room, 1e-9)
        for key, room in history.room.items()
        if room >= 0 and key in tried.violations
    ]
    return max(shares, default=None)


def _allowed(history: History) -> float:
    """How far the log-loss of general text may rise, in nats; 0 where it has no limit."""
    rooms = [room for key, room in history.room.items() if key.startswith(f"{GENERAL_TEXT}.")]
    return max(1e-9, min(rooms)) if rooms else 0.0


def _is_milder(one: Level, other: Level) -> bool:
    """Whether `one` keeps more than `other`; not if they cannot be compared."""
    return one.family == other.family and one.rule.mildness > other.rule.mildness
