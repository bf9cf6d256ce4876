"""Whether cuts by clusters of rows find more than cuts of whole matrices.

    python benchmarks/landscape/row_clusters.py --table ./landscape/demo --clusters 2 4 8

Compress to Impress (arXiv 2510.20800) parts the rows of a matrix into clusters and truncates the
SVD of each. Here every single cut of the table is made that way too: k-means over the directions of
the rows, and of K clusters each keeps 1/K of the rank of the plain cut, so that the clusters
together keep that rank and no more parameters. Scores are on validation, and of each kind's best
cut on test, where the difference to the plain one is paired.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.cluster.vq import kmeans2
from table import Landscape
from torch import Tensor

from search.cuts.composition import Composition, Intervention
from search.evaluation.evaluator import Evaluator
from search.study.jobs import Job


def clustered(count: int, labels: dict[str, Any], cut: Intervention, original: Tensor) -> Tensor:
    """The matrix [out, in] with every cluster of its rows truncated, computed in float64."""
    matrix = original.double()
    name = str(cut.matrix)
    if name not in labels:
        directions = matrix / matrix.norm(dim=1, keepdim=True).clamp_min(1e-30)
        labels[name] = torch.from_numpy(kmeans2(directions.numpy(), count, minit="++", seed=0)[1])
    rank = math.ceil(cut.rule.rank(min(matrix.shape)) / count)
    result = torch.zeros_like(matrix)
    for label in labels[name].unique():
        rows = labels[name] == label
        u, s, v = torch.linalg.svd(matrix[rows], full_matrices=False)
        result[rows] = (u[:, :rank] * s[:rank]) @ v[:rank]
    return result.to(original.dtype)


def scores(evaluator: Evaluator, composition: Composition, effect: str) -> list[float]:
    """What every question scores."""
    job = Job(effect or "baseline", composition, effect, "validation")
    return [outcome.score for outcome in evaluator.evaluate(job).outcomes]


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--clusters", type=int, nargs="+", default=[2, 4, 8])
    asked = parser.parse_args()
    landscape = Landscape(asked.table)
    grid = landscape.grid()
    evaluators = {part: landscape._evaluator(part) for part in ("validation", "test")}
    plain = {effect: landscape.truth(cut).score for effect, cut in grid.items()}
    best = max(plain, key=lambda effect: plain[effect])
    base = landscape.truth(Composition()).score
    test = scores(evaluators["test"], grid[best], best)
    mean = sum(test) / len(test)
    print(
        f"baseline {base:.4f}; plain: best {plain[best]:.4f} [{best}], test {mean:.4f}", flush=True
    )
    for count in asked.clusters:
        for evaluator in evaluators.values():
            labels: dict[str, Any] = {}
            make = partial(clustered, count, labels)
            evaluator.editor._products.value = lambda cut, original, key, make=make: make(
                cut, original
            )
            evaluator.editor.apply(Composition())
        found = {}
        for effect, cut in grid.items():
            answers = scores(evaluators["validation"], cut, effect)
            found[effect] = sum(answers) / len(answers)
        winner = max(found, key=lambda effect: found[effect])
        better = sum(found[effect] > plain[effect] for effect in grid)
        worse = sum(found[effect] < plain[effect] for effect in grid)
        held = scores(evaluators["test"], grid[winner], winner)
        gain = sum(a - b for a, b in zip(held, test, strict=True)) / len(test)
        mean = sum(held) / len(held)
        print(
            f"{count} clusters: best {found[winner]:.4f} [{winner}], test {mean:.4f} ({gain:+.4f}"
            f" to plain); of {len(grid)} cuts {better} better than plain, {worse} worse",
            flush=True,
        )


if __name__ == "__main__":
    main()
