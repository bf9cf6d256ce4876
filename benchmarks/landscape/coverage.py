"""How often the printed 95 % interval of the winner's gain on test holds the true gain.

    python benchmarks/landscape/coverage.py --tables ./landscape/demo --studies 200

The table's groups are the world. A study draws its validation and its test groups from it, with
replacement, tries compositions, chooses its winner on validation and prints the interval of
`tasks.comparison` on test. The true gain of that winner is its gain over the whole world.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from confirm import answers
from numpy.typing import NDArray
from table import Landscape

from tasks.base import Outcome
from tasks.comparison import compare


def outcomes(scores: NDArray[np.float64], groups: list[str]) -> list[Outcome]:
    """Scores as outcomes, numbered in order."""
    return [
        Outcome(str(n), group, float(score), 0.0, None)
        for n, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]


def covered(landscape: Landscape, studies: int, trials: int, test_groups: int) -> dict[str, float]:
    """Shares of studies whose interval holds the truth, lies above it, lies below it."""
    scores, logs, group_of = answers(landscape)
    members = [np.flatnonzero(group_of == g) for g in range(group_of.max() + 1)]
    truth = scores.mean(1) - scores[0].mean()
    inside, above, below, gains = 0, 0, 0, []
    for study in range(studies):
        rng = np.random.default_rng(study)
        seen = np.concatenate([members[g] for g in rng.integers(len(members), size=test_groups)])
        tried = 1 + rng.choice(len(scores) - 1, min(trials, len(scores) - 1), replace=False)
        merit = scores[:, seen].mean(1) + 1e-9 * logs[:, seen].mean(1)
        winner = int(tried[np.argmax(merit[tried])])
        drawn = rng.integers(len(members), size=test_groups)
        asked = np.concatenate([members[g] for g in drawn])
        names = [str(n) for n, g in enumerate(drawn) for _ in members[g]]
        found = compare(
            *(outcomes(scores[side, asked], names) for side in (0, winner)), resamples=2000
        )
        inside += found.low <= truth[winner] <= found.high
        above += found.low > truth[winner]
        below += found.high < truth[winner]
        gains.append(truth[winner])
    return {
        "held": inside / studies,
        "above": above / studies,
        "below": below / studies,
        "mean true gain": float(np.mean(gains)),
    }


def main() -> None:
    """Print a line for each table and size of test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 50, 200])
    asked = parser.parse_args()
    for folder in asked.tables:
        landscape = Landscape(folder)
        for groups in asked.groups:
            found = covered(landscape, asked.studies, asked.trials, groups)
            said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            print(f"{folder.name}, test of {groups} groups: {said}", flush=True)


if __name__ == "__main__":
    main()
