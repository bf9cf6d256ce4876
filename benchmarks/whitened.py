"""What whitened cuts cost and keep: seconds by shape, and a whole model cut plainly and whitened.

    python benchmarks/whitened.py shapes [--shapes 768x768,3072x768,576x1536]
    python benchmarks/whitened.py everywhere --model DIR --task sst2 --data dev.tsv
    python benchmarks/whitened.py everywhere                              # the demo's model

`shapes`: seconds of factors, plain (one SVD), and whitened (eigenvectors of C, then the SVD of
W R), of a random matrix out x in and inputs whose sizes fall over two decades.

`everywhere`: every matrix of the blocks cut to each rho, plainly and whitened, and the share of
right answers on the test part; calibrated on validation, or on a file. One process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from search.calibration.calibration import Calibration, study_texts
from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.model import ModelSource
from search.plan import open_task
from search.sections import CalibrationConfig, TaskConfig
from search.study.jobs import Job
from search.weights.matrices import find_matrices
from search.weights.svd import decompose, decompose_wide
from search.weights.whitening import floored_root
from tasks.splits import split_examples

SHAPES = "768x768,3072x768,768x3072,576x1536"
RHO = (0.45, 0.3, 0.1)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of `repeats`."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def random_case(out: int, into: int) -> tuple[Tensor, Tensor]:
    """W [out, in], float32, and C [in, in], float64, of inputs of falling sizes."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(2 * into, into, generator=draw, dtype=torch.float64)
    inputs = inputs * torch.logspace(0, -2, into, dtype=torch.float64)
    weight = torch.randn(out, into, generator=draw) / into**0.5
    return weight, inputs.T @ inputs / len(inputs)


def shapes(asked: argparse.Namespace) -> None:
    """Seconds by shape."""
    print("| out x in | plain | eigenvectors of C | SVD of W R | whitened / plain |")
    print("|---|---|---|---|---|")
    for text in asked.shapes.split(","):
        out, into = map(int, text.split("x"))
        weight, moment = random_case(out, into)
        root = floored_root(moment)
        wide = weight.double() @ root
        plain = seconds(lambda weight=weight: decompose(weight), asked.repeats)
        eigen = seconds(lambda moment=moment: floored_root(moment), asked.repeats)
        whitened = seconds(lambda wide=wide: decompose_wide(wide), asked.repeats)
        ratio = (eigen + whitened) / plain
        print(f"| {text} | {plain:.2f} | {eigen:.2f} | {whitened:.2f} | {ratio:.1f} |", flush=True)


def everywhere(asked: argparse.Namespace) -> None:
    """Right answers of a model all of whose block matrices are cut."""
    source = ModelSource(str(asked.model))
    task = open_task(TaskConfig(name=asked.task, data=str(asked.data)), source.head)
    split = split_examples(task.load(str(asked.data)), asked.validation)
    chosen = CalibrationConfig(data=asked.calibration, tokens=asked.tokens)
    texts = study_texts(chosen, task, split, source.head)
    matrices = [m for m in find_matrices(source.skeleton()) if m.searchable]
    with tempfile.TemporaryDirectory() as scratch:
        calibration = Calibration(source, tuple(m.ref for m in matrices), texts)
        started = time.perf_counter()
        inputs = calibration.run(scratch)
        counted = time.perf_counter() - started
        tokens = max(one.tokens for one in inputs.values())
        distinct = len({one.name for one in inputs.values()})
        print(f"calibration: {tokens} tokens, {distinct} inputs, {counted:.1f} s, with the load")
        questions = Questions(task, {"test": split.test})
        evaluator = open_evaluator(source, questions, Path(scratch), Hosting(inputs=inputs))

        def right(cuts: Sequence[str]) -> str:
            composition = Composition.parse(cuts)
            found = evaluator.evaluate(Job("x", composition, "", "test"))
            hits = sum(outcome.score for outcome in found.outcomes)
            return f"{hits:.0f} ({found.log_loss:.3f})"

        print(f"{len(split.test)} questions of test, {len(matrices)} matrices; right (log-loss)")
        print(f"uncut: {right([])}")
        print("| rho | plain | whitened |")
        print("|---|---|---|")
        for rho in asked.rho:
            plain = right([f"{m.ref}={rho}" for m in matrices])
            whitened = right([f"{m.ref}=whitened/{rho}" for m in matrices])
            print(f"| {rho} | {plain} | {whitened} |", flush=True)
        evaluator.close()


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("shapes")
    first.add_argument("--shapes", default=SHAPES)
    first.add_argument("--repeats", type=int, default=2)
    first.set_defaults(run=shapes)
    second = commands.add_parser("everywhere")
    second.add_argument("--model", type=Path, default=HERE / "model")
    second.add_argument("--task", default="jsonl")
    second.add_argument("--data", default=HERE / "questions.jsonl")
    second.add_argument("--calibration", help="texts; by default the prompts of validation")
    second.add_argument("--tokens", type=int, default=65536)
    second.add_argument("--validation", type=float, default=0.5)
    second.add_argument("--rho", type=float, nargs="+", default=RHO)
    second.set_defaults(run=everywhere)
    asked = parser.parse_args()
    torch.set_num_threads(2)
    asked.run(asked)


if __name__ == "__main__":
    main()
