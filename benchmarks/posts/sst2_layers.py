"""Every layer of a classifier cut at a few fractions, one cut at a time, as a post did with BERT.

    python benchmarks/posts/sst2_layers.py MODEL [--data sst2-dev.tsv] [--removed 0.9 0.95 0.99]

24 layers of BERT-large times 3 fractions are 72 cuts. `--removed` is the part of the rank that
goes, as the post counts, so 0.9 is rho 0.1. The post's loop passes its fraction on nowhere: all of
its rows are of one rank. The best of many cuts looks better than it is, so it is chosen on one half
of the questions and compared with the unedited model on the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.rules import RankRule
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.model import ModelSource, own_device
from search.plan import open_task
from search.sections import TaskConfig
from search.study.jobs import Job
from search.study.outcomes import Evaluation
from search.weights.matrices import find_matrices
from search.weights.selection import expand
from tasks.comparison import compare
from tasks.errors import InputError
from tasks.splits import split_examples


def evaluate(evaluator: Evaluator, composition: Composition, part: str) -> Evaluation:
    """Score one composition on one half."""
    return evaluator.evaluate(Job(f"{part} {composition}", composition, str(composition), part))  # type: ignore[arg-type]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All cuts on one half, the best and the baseline on the other."""
    source = ModelSource(options.model, None, options.head)
    task = open_task(TaskConfig(name=options.task, data=options.data), source.head)
    split = split_examples(task.load(options.data), 0.5, options.seed, "groups")
    halves = {"validation": split.validation, "test": split.test}
    refs = expand(f"*.{options.type}", find_matrices(source.skeleton()))
    hosting = Hosting(own_device())
    evaluator = open_evaluator(source, Questions(task, halves), options.factors, hosting)
    whole = Composition()
    rows = [
        {"layer": None, "removed": 0.0, "accuracy": evaluate(evaluator, whole, "validation").score}
    ]
    best = (rows[0]["accuracy"], whole)
    for ref in refs:
        for removed in options.removed:
            rule = RankRule("rho", round(1 - removed, 9))
            cut = Composition((Intervention(ref, Level(rule)),))
            score = evaluate(evaluator, cut, "validation").score
            rows.append({"layer": ref.layer, "removed": removed, "accuracy": score})
            best = max(best, (score, cut), key=lambda pair: pair[0])
    sides = [evaluate(evaluator, one, "test").outcomes for one in (whole, best[1])]
    evaluator.close()
    other = compare(*sides)
    return {
        "rows": rows,
        "best": str(best[1]),
        "other_half": {"before": other.baseline, "after": other.winner, "low": other.low,
                       "high": other.high, "p_value": other.p_value},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 2 where something that was given cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="a classifier: local folder or hub id")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--head", default="auto")
    parser.add_argument("--data", help="a local file in the place of the hub's data")
    parser.add_argument("--type", default="fc_in", help="the matrix of each layer")
    parser.add_argument("--removed", type=float, nargs="+", default=[0.9, 0.95, 0.99])
    parser.add_argument("--factors", default="factors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        found = run(options)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print("| layer | removed | accuracy, first half |\n|---|---|---|")
    for row in found["rows"]:
        name = "–" if row["layer"] is None else row["layer"]
        print(f"| {name} | {row['removed']:g} | {row['accuracy']:.4f} |")
    other = found["other_half"]
    print(
        f"best of {len(found['rows']) - 1}: {found['best']}; on the other half "
        f"{other['before']:.4f} -> {other['after']:.4f}, 95 % interval {other['low']:+.4f} to "
        f"{other['high']:+.4f}, p = {other['p_value']:.2g}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
