"""Time, memory and size of a report, by the number of trials.

    python benchmarks/report.py [--trials 300 1000 10000] [--layers 28]

Studies with made-up scores but the real storage: trials in an Optuna journal with up to three cuts
of `layers` layers and seven types, a tenth of them pruned; 2,000 questions. The
program runs as a user runs it, in a process of its own, so its imports count.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from search.config import parse_config, write_config
from search.cuts.refs import GROUPS
from search.durable import write_json
from search.sections import PAPER_RHO
from search.study.identity import Identity
from search.study.jobs import BASELINE, TEST_BASELINE, test_name
from search.study.objective import Objective
from search.study.optuna_study import BUDGET, METRICS
from search.study.outcomes import Evaluation, write_outcomes
from search.study.questions import write_questions
from search.study.storages import open_storage
from search.study.study_record import CONFIG
from search.study.trials import TrialRecord
from search.study.verdict import conclude
from search.study.winner import Decision, choose_winner
from tasks.base import Example, Outcome
from tasks.datasets import Split

QUESTIONS = 2000


def main() -> None:
    """Print one line of JSON per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 1000, 10_000])
    parser.add_argument("--layers", type=int, default=28)
    asked = parser.parse_args()
    for trials in asked.trials:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "study"
            began = time.perf_counter()
            make(folder, trials, asked.layers)
            made_s = time.perf_counter() - began
            print(
                json.dumps(
                    {
                        "trials": trials,
                        **measured(folder),
                        "imports_s": imported(),
                        "made_s": round(made_s, 1),
                    }
                )
            )


def imported() -> float:
    """Seconds of the imports alone, the baseline."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import search.report.html"], check=True)
    return round(time.perf_counter() - began, 1)


def measured(folder: Path) -> dict[str, float]:
    """Wall seconds, peak memory of the process in MB, and the file's size in MB."""
    command = [sys.executable, "-m", "cluster.cli", "report", str(folder), "--json"]
    began = time.perf_counter()
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    wall_s = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"s": round(wall_s, 1), "MB": round(peak), "file_MB": round(found["bytes"] / 1e6, 2)}


def make(folder: Path, count: int, layers: int) -> None:
    """A study of `count` trials with a verdict."""
    folder.mkdir(parents=True)
    config = parse_config(
        {"model": {"path": "made-up"}, "task": {"name": "jsonl"},
         "space": {"matrices": ["all"]}, "search": {"trials": count, "chunks": 4}}, "here",
    )  # fmt: skip
    identity = Identity("b" * 32, "2026-11-21T00:00:00+00:00", {}, *"wces")
    identity.write(folder)
    write_config(config, folder / CONFIG)
    split = Split(_examples("validation"), _examples("test"))
    write_questions(folder, split)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=identity.study_id, storage=open_storage(folder, None), direction="maximize"
    )
    objective = Objective.of(config, {"": "accuracy"})
    study.set_user_attr(BUDGET, count)
    study.set_user_attr(METRICS, objective.metrics)
    study.add_trials(_trials(count, layers))
    for name in (BASELINE, TEST_BASELINE):
        write_outcomes(folder, _evaluation(name, "", name.partition("-")[2], 0.5))
    winner = choose_winner(map(TrialRecord.of, study.get_trials(deepcopy=False)), None, objective)
    if winner is None:
        raise SystemExit("no trial is complete")
    effect = winner.effect
    number = winner.number
    write_outcomes(folder, _evaluation(f"trial-{number:05d}", effect, "validation", 0.7))
    write_outcomes(folder, _evaluation(test_name(number), effect, "test", 0.66))
    if conclude(folder, identity, Decision(winner), split, objective) is None:
        raise SystemExit("the verdict is missing")
    write_json(folder / "made-up.json", {"by": "benchmarks/report.py"})


def _trials(count: int, layers: int) -> list[optuna.trial.FrozenTrial]:
    chance, begun = random.Random(0), datetime(2026, 11, 21)
    found = []
    for number in range(count):
        refs = {
            f"{chance.randrange(layers)}.{chance.choice(GROUPS['all'])}"
            for _ in range(chance.randint(1, 3))
        }
        text = " ".join(f"{ref}={chance.choice(PAPER_RHO)}" for ref in sorted(refs))
        pruned = number % 10 == 7
        score = 1 / (1 + math.exp(-chance.gauss(0, 0.4)))
        attributes = {
            "composition": text, "effect": f"{text} {number}", "log_loss": 1 - score,
            "seconds": {"forward": 0.9, "apply": 0.05, "score": 0.05, "total": 1.0},
        }  # fmt: skip
        trial = create_trial(
            params={"interventions": len(refs)},
            distributions={"interventions": IntDistribution(1, 3)},
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            value=None if pruned else score, user_attrs=attributes,
            intermediate_values={1: score} if pruned else {},
        )  # fmt: skip
        trial.datetime_start = begun + timedelta(seconds=number)
        trial.datetime_complete = begun + timedelta(seconds=number + 1)
        found.append(trial)
    return found


def _examples(part: str) -> list[Example]:
    return [
        Example(f"{part}{n}", f"{part}g{n}", f"A question, number {n}?", "yes")
        for n in range(QUESTIONS)
    ]


def _evaluation(name: str, effect: str, part: str, share: float) -> Evaluation:
    chance = random.Random(name)
    outcomes = []
    for n in range(QUESTIONS):
        right = chance.random() < share
        p = min(0.99, max(0.01, chance.gauss(0.7 if right else 0.4, 0.15)))
        answer = "yes" if right else "no"
        outcomes.append(
            Outcome(f"{part}{n}", f"{part}g{n}", float(right), math.log(p), answer, confidence=p)
        )
    score = sum(o.score for o in outcomes) / QUESTIONS
    return Evaluation(name, "b" * 32, effect, effect, part, score, 0.7, {}, tuple(outcomes))


if __name__ == "__main__":
    main()
