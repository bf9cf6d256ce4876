"""Repeat a cell of the LASER paper's table, or its composition, with the original's rules.

    python benchmarks/paper/repeat.py gptj fever
    python benchmarks/paper/repeat.py roberta bios-gender --path ./roberta --data ./bios.jsonl
    python benchmarks/paper/repeat.py gptj counterfact --composition
    python benchmarks/paper/repeat.py --list

Models and data come from the hub unless a local folder and file are given. Scored on the last 80 %
of the file, as the paper's numbers are, with `scoring: paper`. Both ways to cut are shown: the best
matrix of the rank (exact), and LASER's own randomised one (svd-lowrank). `--composition` searches
as the paper describes it: from the last layer down and the smallest fraction up, on the first 20 %,
keeping what raises the accuracy; the result is scored on the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from optuna.trial import TrialState
from scipy.stats import binomtest

from search.cuts.composition import Composition
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.model import ModelSource, own_device
from search.paper import CELLS, COMPOSITION, MODELS, Cell, cell
from search.plan import open_task
from search.sections import PAPER_RHO, SearchConfig, SpaceConfig, SplitConfig, TaskConfig
from search.space import Space
from search.standalone import CutRequest, StandaloneResult, evaluate_compositions
from search.strategies.base import BASELINE_NUMBER, History, Setting, Tried
from search.strategies.registry import make_strategy
from search.study.jobs import Job
from search.weights.matrices import find_matrices
from tasks.errors import InputError
from tasks.scoring import Scores
from tasks.splits import split_examples

WAYS = ("exact", "svd-lowrank")
COMPOSED = ("gptj", "counterfact")
"""The one cell of which a composition is published."""


def interval(scores: Scores) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy."""
    found = binomtest(round(scores.score * scores.n), scores.n).proportion_ci(method="wilson")
    return found.low, found.high


def repeat(
    found: Cell, way: str, options: argparse.Namespace, cuts: list[str] | None = None
) -> StandaloneResult:
    """Score the cell's model before and after its intervention, or after `cuts`, in one of WAYS."""
    return evaluate_compositions(
        source=source(found, options),
        task=task_of(found, options),
        part="test",
        split=SplitConfig(validation=0.2, protocol="paper"),
        cuts=CutRequest(
            tuple(cuts or ()),
            (found.type, found.layer, found.rate) if cuts is None else None,
            way,  # type: ignore[arg-type]
        ),
        factors=options.factors,
    )


def task_of(found: Cell, options: argparse.Namespace) -> TaskConfig:
    """The cell's task with the original's rules, from a local file where one is given."""
    return TaskConfig(
        name=found.asked, data=options.data, scoring="paper", tokenizer=options.tokenizer
    )


def source(found: Cell, options: argparse.Namespace) -> ModelSource:
    """The cell's model: a local folder where one is given, else the hub's."""
    model = MODELS[found.model]
    dtype = options.dtype or model.dtype
    return ModelSource(options.path or model.path, None, model.head, dtype)  # type: ignore[arg-type]


def facts(found: Cell, way: str, direct: StandaloneResult) -> dict[str, Any]:
    """One row: published and found, in per cent."""
    names = list(direct.scores)  # the baseline, and the composition if it has any cut
    before, after = direct.scores[names[0]], direct.scores[names[-1]]
    compared = direct.comparison
    row: dict[str, Any] = {
        "model": found.model,
        "task": found.task,
        "way": way,
        "intervention": names[-1],
        "n": before.n,
        "published": [found.before, found.after],
        "found": [100 * before.score, 100 * after.score],
        "intervals": [[100 * end for end in interval(s)] for s in (before, after)],
        "log_loss": [before.log_loss, after.log_loss],
        "majority": 100 * (before.majority_baseline or 0),
    }
    if compared is not None:
        row["difference"] = 100 * compared.difference
        row["difference_interval"] = [100 * compared.low, 100 * compared.high]
        row["p_value"] = compared.p_value
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of `facts` as Markdown."""
    lines = [
        "| model | task | cut | questions | | before | after | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['model']} | {row['task']} | {row['intervention']} | {row['n']:,} |"
        old, new = row["published"]
        lines.append(f"{head} published | {old:.1f} | {new:.1f} | {new - old:+.1f} |")
        spans = [f"{low:.1f} to {high:.1f}" for low, high in row["intervals"]]
        ends = row.get("difference_interval", [0.0, 0.0])
        lines.append(
            f"{head} {row['way']} | {row['found'][0]:.1f} ({spans[0]}) | "
            f"{row['found'][1]:.1f} ({spans[1]}) | "
            f"{row.get('difference', 0.0):+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f}) |"
        )
    return "\n".join(lines)


def compose(found: Cell, way: str, options: argparse.Namespace) -> list[str]:
    """Search the composition on the first 20 %, trial by trial; returns its interventions."""
    where = source(found, options)
    task = open_task(task_of(found, options), where.head)
    examples = task.load(options.data)
    validation = split_examples(examples, 0.2, 0, "paper").validation
    skeleton = where.skeleton()
    matrices = find_matrices(skeleton)
    every = SpaceConfig(matrices=["fc_in", "fc_out"], rho=list(options.rho), max_interventions=1)
    space = Space.build(every, matrices)
    ladder = space.ladder if way == "exact" else space.ladder.as_laser(where.model_type)
    space = replace(space, ladder=ladder, max_interventions=len(space.matrices))
    full = {matrix.ref: matrix.max_rank for matrix in matrices}
    strategy = make_strategy(SearchConfig(strategy="greedy"), Setting(space, full))
    evaluator = open_evaluator(
        where,
        Questions(task, {"validation": validation}),
        options.factors,
        Hosting(own_device()),
    )
    history = History(full, len(space.matrices) * len(space.levels))
    history.put(try_(evaluator, BASELINE_NUMBER, Composition(), ""))
    while (proposed := strategy.suggest(history)) is not None:
        effect = history.effect(proposed)
        history.put(tried := try_(evaluator, len(history), proposed, effect))
        print(f"{tried.number}: {100 * tried.values[0]:.1f} {proposed}", file=sys.stderr)
    evaluator.close()
    best = max([history.baseline, *history], key=lambda one: one.merit)  # type: ignore[list-item,union-attr]
    return [str(cut) for cut in best.composition.interventions]  # type: ignore[union-attr]


def try_(evaluator: Evaluator, number: int, composition: Composition, effect: str) -> Tried:
    """Evaluate a composition on validation."""
    found = evaluator.evaluate(Job(str(number), composition, effect, "validation"))
    return Tried(number, composition, effect, TrialState.COMPLETE, (found.score,), found.log_loss)


def main(arguments: list[str] | None = None) -> int:
    """Print the rows; 2 where something that was given cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", choices=[*MODELS], help="a model of the paper")
    parser.add_argument("task", nargs="?", help="a task of the paper, such as fever")
    parser.add_argument("--list", action="store_true", help="print the table and end")
    parser.add_argument("--path", help="a local folder in the place of the hub's model")
    parser.add_argument("--data", help="a local file in the place of the hub's data")
    parser.add_argument("--tokenizer", help="Llama's, where HotpotQA is asked without the hub")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--way", choices=[*WAYS, "both"], default="both")
    parser.add_argument("--intervention", action="append", help="another than the paper's")
    parser.add_argument("--composition", action="store_true", help="search and score several cuts")
    parser.add_argument("--rho", type=float, nargs="+", default=list(PAPER_RHO))
    parser.add_argument("--factors", default="factors")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.list:
        for one in CELLS:
            cut = f"{one.layer}.{one.type}={one.rho:g}"
            print(f"{one.model:<8} {one.task:<29} {cut:<15} {one.before:5.1f} {one.after:5.1f}")
        return 0
    if options.model is None or options.task is None:
        parser.error("give a model and a task, or --list")
    try:
        rows = run(cell(options.model, options.task), options)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    return 0


def run(found: Cell, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows for each way to cut."""
    if options.composition and (found.model, found.task) == COMPOSED:
        found = replace(found, after=COMPOSITION["composed"])
    rows = []
    for way in WAYS if options.way == "both" else (options.way,):
        cuts = options.intervention
        if options.composition:
            cuts = compose(found, way, options)
        rows.append(facts(found, way, repeat(found, way, options, cuts)))
    return rows


if __name__ == "__main__":
    sys.exit(main())
