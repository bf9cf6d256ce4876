"""What a strategy alone costs the driver, and which trials it chooses: no study, no Ray.

    python benchmarks/choosing.py --strategy auto --matrices 224 --limit 0.01 --trials 5000 [--race]

A made-up space at nine rho, answers of the landscape of sleepers.py, 64 trials in flight. Prints
processor seconds a suggestion as trials add up, and a digest of all that was chosen: two versions
that print the same one have chosen the same trials.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import time

from optuna.trial import TrialState
from sleepers import cost, gain, made_up, predicted

from search.cuts.composition import Composition
from search.ladder import Ladder
from search.sections import SearchConfig
from search.space import Space
from search.strategies.base import BASELINE_NUMBER, History, Setting, Tried
from search.strategies.registry import make_strategy
from search.strategies.singles import screened
from tasks.guarded import GENERAL_TEXT

RHO = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)


def setting_of(matrices: int, limit: float) -> Setting:
    """A space with a screen of it, which foresees costs where there is a limit."""
    refs = made_up(matrices)
    space = Space(refs, Ladder.of_rho(RHO), min(5, matrices))
    told = {cut: predicted(str(cut)) for cut in screened(space)}
    gains = {cut: -better for cut, (better, _) in told.items()}
    costs = {cut: worse for cut, (_, worse) in told.items() if limit}
    return Setting(space, dict.fromkeys(refs, 1024), 0, screen=gains, costs=costs)


class Answers:
    """What becomes of trials: nearly additive gains of hits and misses, costs that add up."""

    def __init__(self, history: History, limit: float, race: bool) -> None:
        """`race`: a trial that is well below the best one is stopped half-way."""
        self._history, self._race = history, race
        self._room = math.log1p(limit) if limit else None
        self._best = 0.0
        steps = ((1, 0.4), (2, 0.4)) if race else ()
        unedited = (BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, (0.4,), 0.6, steps)
        history.put(Tried(*unedited))
        if self._room is not None:
            history.room = {f"{GENERAL_TEXT}.worse_by": self._room}

    def end(self, number: int) -> None:
        """Put what became of a trial in flight."""
        known = self._history[number]
        cuts = [str(cut) for cut in known.composition.interventions]
        exact = 0.4 + sum(map(gain, cuts))
        score = round(exact * 500) / 500
        facts = (number, known.composition, known.effect)
        if self._race and score < self._best - 0.01:
            stopped = Tried(*facts, TrialState.PRUNED, steps=((1, score),))
            self._history.put(stopped)
            return
        lost = sum(map(cost, cuts))
        kept = {} if self._room is None else {f"{GENERAL_TEXT}.worse_by": lost - self._room}
        tried = Tried(*facts, TrialState.COMPLETE, (score,), 1 - exact, violations=kept)
        self._best = max(self._best, score if tried.counts else 0.0)
        self._history.put(tried)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--matrices", type=int, default=224)
    parser.add_argument("--limit", type=float, default=0.0)
    parser.add_argument("--race", action="store_true")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=64)
    asked = parser.parse_args()
    setting = setting_of(asked.matrices, asked.limit)
    history = History(setting.max_ranks, asked.trials)
    answers = Answers(history, asked.limit, asked.race)
    begun = time.process_time()
    strategy = make_strategy(SearchConfig(strategy=asked.strategy), setting)
    print(f"made in {time.process_time() - begun:.2f} s of processor time")
    costs: list[float] = []
    digest = hashlib.sha256()
    while len(history) < asked.trials:
        begun = time.process_time()
        chosen = strategy.suggest(history)
        costs.append(1000 * (time.process_time() - begun))
        if chosen is None:
            break
        digest.update(f"{chosen}\n".encode())
        history.put(Tried(len(history), chosen, history.effect(chosen)))
        flying = history.in_flight
        if len(flying) >= asked.in_flight:
            answers.end(flying[len(history) % 7])
        if len(costs) in (200, 500) or len(costs) % 1000 == 0:
            last = costs[-100:]
            print(
                f"{len(costs)}: {statistics.fmean(last):.2f} ms (most {max(last):.1f}), so far "
                f"{statistics.fmean(costs):.2f}, {digest.hexdigest()[:12]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
