"""What to choose the winner by, and whether to keep a part of validation back for that.

    python benchmarks/landscape/confirm.py --tables ./landscape/demo ./landscape/sst2
    python benchmarks/landscape/confirm.py --tables ./real-lm --worse-by 0.01 --validation 0.5 \
        --rules validation +0.5 +1 +2 quadratic

From a table's answers, over many random splits of its groups: a search that has tried a number of
compositions chooses its winner on all of validation, or chooses finalists on a share of it and the
winner on the rest (`0.25/4`: four on three quarters). What the winner then gains on test, which no
choice saw, says which is better. `+2`: by score and twice the quadratic score of the right answer's
probability; `quadratic`: by that alone. `--worse-by`: only compositions that keep this limit on
general text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from table import Landscape

Floats = NDArray[np.float64]


def answers(
    landscape: Landscape, worse_by: float | None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Scores and log-probabilities [effects, questions] of the table, and each question's group.

    Of validation, and of test where the table has it. The first row is the unedited model.
    `worse_by`: by what share the perplexity of general text may rise.
    """
    parts = [part for part in ("validation", "test") if landscape.effects(part)]
    found = [landscape.effects(part) for part in parts]
    shared = set.intersection(*(set(one) for one in found)) - {""}
    if worse_by is not None:
        guard = landscape.effects("guard")
        most = guard[""].log_loss + math.log1p(worse_by)
        shared = {effect for effect in shared & set(guard) if guard[effect].log_loss <= most}
    known = ["", *sorted(shared)]
    scores = np.array([np.concatenate([p[e].scores for p in found]) for e in known])
    logs = np.array([np.concatenate([p[e].log_probabilities for p in found]) for e in known])
    names = [x.group for part in parts for x in landscape.examples(part)]
    return scores, logs, np.unique(names, return_inverse=True)[1]


def choose(merit: Floats, candidates: NDArray[np.int64]) -> int:
    """The candidate of the greatest merit, the unedited model (0) if none is above it."""
    best = int(candidates[np.argmax(merit[candidates])])
    return best if merit[best] > merit[0] else 0


def gains(
    table: tuple[Floats, Floats, NDArray[np.int64]],
    validation: float,
    trials: int,
    repeats: int,
    rules: Sequence[str],
) -> dict[str, list[float]]:
    """What the winner of each rule gains on test, by repeat."""
    scores, logs, groups = table
    quadratic = 1 - (1 - np.exp(logs)) ** 2
    total = groups.max() + 1
    found: dict[str, list[float]] = {rule: [] for rule in rules}
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        rank = rng.permutation(total)[groups] / total
        tried = 1 + rng.choice(len(scores) - 1, min(trials, len(scores) - 1), replace=False)

        def merit(low: float, high: float, rank: Floats = rank) -> Floats:
            part = (rank >= low) & (rank < high)
            return scores[:, part].mean(1) + 1e-9 * logs[:, part].mean(1)

        seen_all, soft = merit(0, validation), quadratic[:, rank < validation].mean(1)
        test = merit(validation, 1.0)
        for rule in rules:
            if rule == "validation":
                winner = choose(seen_all, tried)
            elif rule == "quadratic":
                winner = choose(soft, tried)
            elif rule.startswith("+"):
                winner = choose(seen_all + float(rule) * soft, tried)
            else:
                share, finalists = float(rule.split("/")[0]), int(rule.split("/")[1])
                seen = merit(0, validation * (1 - share))
                order = tried[np.argsort(-seen[tried], kind="stable")][:finalists]
                kept = order[seen[order] > seen[0]]
                unseen = merit(validation * (1 - share), validation)
                winner = choose(unseen, kept) if len(kept) else 0
            found[rule].append(float(test[winner] - test[0]))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--validation", type=float, nargs="+", default=[0.1, 0.2, 0.5])
    parser.add_argument("--worse-by", type=float)
    kept_back = ["0.25/4", "0.25/8", "0.5/4", "0.5/8"]
    parser.add_argument("--rules", nargs="+", default=["validation", *kept_back])
    asked = parser.parse_args()
    print("| table, validation | chosen on | gain on test | unedited kept | worse than unedited |")
    print("|---|---|---|---|---|")
    for folder in asked.tables:
        table = answers(Landscape(folder), asked.worse_by)
        for validation in asked.validation:
            found = gains(table, validation, asked.trials, asked.repeats, asked.rules)
            for rule, values in found.items():
                own = np.array(values)
                error = own.std() / np.sqrt(len(own))
                print(
                    f"| {folder.name}, {validation:g} | {rule} | {own.mean():+.4f} ± {error:.4f} "
                    f"| {(own == 0).mean():.0%} | {(own < -1e-6).mean():.0%} |"
                )


if __name__ == "__main__":
    main()
