"""Restoration: after many trials on one worker, every byte of the model is the checkpoint's.

    python benchmarks/restoration.py --trials 1000

Runs random compositions of the demo's space through the evaluator that a worker uses, with every
rank and kind, then compares each parameter and buffer with a freshly loaded model.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import torch

from laser_search.testing.kinds import measured
from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.registry import KINDS
from search.cuts.level import Level
from search.cuts.rules import RankRule
from search.demo.study import demo_config
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.plan import Plan, make_plan
from search.study.jobs import Job


def draw(plan: Plan, chance: random.Random) -> Composition:
    """Up to six cuts of any kind on distinct matrices."""
    cuts = []
    for matrix in chance.sample(plan.matrices, chance.randint(1, 6)):
        kind = chance.choice(list(KINDS))
        rho = 0.0 if kind == "zero" else chance.random()
        cuts.append(Intervention(matrix.ref, Level(RankRule("rho", rho), kind)))
    return Composition(tuple(cuts))


def main() -> int:
    """Run the trials and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        plan = make_plan(demo_config(Path(scratch)))
        few = plan.split.validation[:32]
        questions = Questions(plan.task, {"validation": few})
        inputs = {matrix.ref: measured(matrix.shape[1]) for matrix in plan.matrices}
        hosting = Hosting(inputs=inputs)
        evaluator = open_evaluator(plan.source, questions, Path(scratch), hosting)
        changed = 0
        for number in range(asked.trials):
            composition = draw(plan, chance)
            steps = evaluator.run(Job(f"{number}", composition, "", "validation"))
            if number % 10 == 0:
                with evaluator.editor.applied(composition):
                    changed += not _same(evaluator.editor.model, plan.source.load())
            next(steps)
            steps.close()
        evaluator.close()
        same = _same(evaluator.editor.model, plan.source.load())
    print(f"{asked.trials} trials; an applied composition differed in {changed} of the samples")
    print(f"bit-identical to the checkpoint afterwards: {same}")
    return 0 if same and changed else 1


def _same(model: torch.nn.Module, fresh: torch.nn.Module) -> bool:
    ours, theirs = model.state_dict(), fresh.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(_bits(ours[name]), _bits(theirs[name])) for name in theirs
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes: unlike a comparison of floats these tell -0 from 0."""
    return tensor.contiguous().view(torch.uint8)


if __name__ == "__main__":
    sys.exit(main())
