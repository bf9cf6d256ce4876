"""What a limit on general text adds to a trial, and what the end of a study takes, on a real model.

    python benchmarks/real_lm.py prepare --out OUT --questions counterfact.json --text wikitext.txt
    python benchmarks/guard_cost.py --out OUT --layers 1 15 28

Seconds of processor time, so that other work on the machine changes little. A trial is one cut of
`fc_in`, first on the questions of validation alone, then on the sample of general text beside them.
Test: the unedited model, whose pass keeps a boundary; the cut of `--winner` from that boundary; the
same from the first block.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from search.config import parse_config, read_config
from search.cuts.composition import Composition
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.plan import Plan, make_plan
from search.study.jobs import Job, Part
from tasks.guarded import Guarded


def plan_of(out: Path) -> Plan:
    """The study of `out` with a limit."""
    settings = read_config(out / "study.yaml").model_dump(mode="json")
    settings["guard"] |= {"worse_by": 0.01}
    return make_plan(parse_config(settings, "guard_cost"))


def opened(plan: Plan) -> Evaluator:
    """The evaluator of one process."""
    hosting = Hosting(searched=frozenset(plan.space.matrices))
    questions = Questions(Guarded(plan.task), plan.parts, 1, plan.objective)
    return open_evaluator(plan.source, questions, plan.config.factors, hosting)


def spent(evaluator: Evaluator, cut: Composition, part: Part, *ahead: Composition) -> float:
    """Seconds of processor time of one job."""
    started = time.process_time()
    evaluator.evaluate(Job("job", cut, "", part, ahead=ahead))
    return time.process_time() - started


def main() -> None:
    """Print what each takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("real-lm"))
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 8, 15, 22, 28])
    parser.add_argument("--winner", type=int, default=25, help="layer of the winner's first cut")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    plan = plan_of(asked.out)
    evaluator = opened(plan)
    sizes = {part: evaluator.tokens(part) for part in ("validation", "sample", "test")}
    print(f"tokens: {sizes}", flush=True)
    print(f"baseline with recording: {spent(evaluator, Composition(), 'validation'):.1f} s")
    sample = evaluator._prepared["sample"]
    for layer in asked.layers:
        cut = Composition.parse([f"{layer}.fc_in=0.1"])
        with evaluator.editor.applied(cut):
            pass  # its factors are there before anything is timed
        evaluator._prepared["sample"] = []
        alone = spent(evaluator, cut, "validation")
        evaluator._prepared["sample"] = sample
        both = spent(evaluator, cut, "validation")
        print(
            f"first cut in {layer}: {alone:.2f} s alone, {both:.2f} s with the sample", flush=True
        )
    winner = Composition.parse([f"{asked.winner}.fc_in=0.1"])
    print(f"test, baseline: {spent(evaluator, Composition(), 'test', winner):.1f} s", flush=True)
    print(f"test, winner from its boundary: {spent(evaluator, winner, 'test'):.1f} s", flush=True)
    evaluator.passes.prefix.forget_all()
    print(f"test, winner from block 0: {spent(evaluator, winner, 'test'):.1f} s", flush=True)


if __name__ == "__main__":
    main()
