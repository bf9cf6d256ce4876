"""What a race would stop on tables of truth: would-be winners lost, and questions saved.

    python benchmarks/landscape/stopped.py --tables ./landscape/demo ./real-lm

Every composition of a table races against an incumbent: in turn the unedited model and one of the
best quarter. The questions come in a new order each time. A *would-be winner* is better than the
incumbent on all questions (score and `--weight` times the quadratic score, then log-loss). Evidence
is just this soft score, the score alone, the log-loss, whichever of score and log-loss gives up
first (each at half of the error level), or both together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from table import Landscape

from search.sections import QUADRATIC_WEIGHT
from search.study.objective import LEAST
from search.study.race import Race, looks_at

Array = NDArray[np.float64]
ERROR = 0.05
MOST = 400
"""Compositions of a table that race, the first ones."""


def stops(differences: Array, looks: int, error: float = ERROR) -> NDArray[np.int64]:
    """The look at which each row of paired differences [trials, questions] is given up, or all."""
    total = differences.shape[1]
    race = Race(looks, error)
    found = np.full(len(differences), looks)
    for row, own in enumerate(differences.tolist()):
        for look in range(1, looks):
            if race.is_lost(own[: -(-total * look // looks)], total):
                found[row] = look
                break
    return found


EVIDENCE: dict[str, Callable[[Array, Array, Array, int], NDArray[np.int64]]] = {
    "soft score": lambda soft, score, loss, looks: stops(soft, looks),
    "score": lambda soft, score, loss, looks: stops(score, looks),
    "log-loss": lambda soft, score, loss, looks: stops(loss, looks),
    "either": lambda soft, score, loss, looks: np.minimum(
        stops(score, looks, ERROR / 2), stops(loss, looks, ERROR / 2)
    ),
    "both": lambda soft, score, loss, looks: np.maximum(stops(score, looks), stops(loss, looks)),
}


def races(
    table: Landscape, evidence: str, looks: int, rounds: int, weight: float
) -> tuple[float, float, int]:
    """The share of would-be winners that is lost, that of questions saved, and the winners."""
    known = table.effects()
    effects = ["", *[effect for effect in known if effect][:MOST]]
    score = np.array([known[effect].scores for effect in effects])
    nats = np.maximum(LEAST, np.array([known[effect].log_probabilities for effect in effects]))
    soft = score + weight * (1 - (1 - np.exp(nats)) ** 2)
    merit = list(zip(soft.mean(1), nats.mean(1), strict=True))
    best = sorted(range(len(effects)), key=merit.__getitem__, reverse=True)
    rng = np.random.default_rng(0)
    lost = winners = 0
    saved = []
    for number in range(rounds):
        order = rng.permutation(score.shape[1])
        rival = best[rng.integers(0, len(best) // 4)] if number % 2 else 0
        own = [x[:, order] - x[rival, order] for x in (soft, score, nats)]
        at = EVIDENCE[evidence](*own, looks)
        better = np.array([one > merit[rival] for one in merit])
        winners += int(better.sum())
        lost += int((at[better] < looks).sum())
        saved.append(float((1 - at[~better] / looks).mean()))
    return lost / winners, float(np.mean(saved)), winners


def main() -> None:
    """Print a table for each landscape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--weight", type=float, default=QUADRATIC_WEIGHT)
    asked = parser.parse_args()
    print("| table | evidence | looks | would-be winners lost | saved of all others |")
    print("|---|---|---|---|---|")
    for folder in asked.tables:
        table = Landscape(folder)
        looks = looks_at(len(table.examples("validation")))
        for evidence in EVIDENCE:
            lost, saved, count = races(table, evidence, looks, asked.rounds, asked.weight)
            print(
                f"| {folder.name} | {evidence} | {looks} | {lost:.2%} of {count} | {saved:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
