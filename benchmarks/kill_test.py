"""SIGKILL the driver of one study again and again; resume; compare with an uninterrupted run.

    python benchmarks/kill_test.py --kills 20 --trials 100

Checks that the study ends with exactly the trials asked for, none left running, no composition
evaluated twice, and trial by trial the same as the uninterrupted study of the same seed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from search.config import StudyConfig, write_config
from search.demo.study import demo_config
from search.study.study_record import StudyRecord
from tasks.errors import InputError

PROGRAM = [sys.executable, "-m", "cluster.cli"]


def config_of(folder: Path, trials: int, questions: int) -> StudyConfig:
    """The demo's study with one worker, so that the order of trials is determined."""
    config = demo_config(folder, trials)
    lines = Path(str(config.task.data)).read_text(encoding="utf-8").splitlines(keepends=True)
    few = folder / "questions.jsonl"
    few.write_text("".join(lines[:questions]), encoding="utf-8")
    task = config.task.model_copy(update={"data": str(few)})
    cluster = config.cluster.model_copy(update={"max_concurrent": 1})
    return config.model_copy(update={"cluster": cluster, "task": task})


def command(folder: Path, study: Path) -> list[str]:
    """Launch the study, or resume it once it has begun."""
    if (study / "study.json").exists():
        return [*PROGRAM, "resume", str(study), "--quiet"]
    return [*PROGRAM, "launch", str(folder / "study.yaml"), "--out", str(study), "--quiet"]


def finished(study: Path) -> int:
    """Finished trials, read from outside as `status` does."""
    try:
        return StudyRecord.read(study).summary.finished
    except InputError:
        return 0


def kill_at_random(folder: Path, study: Path, kills: int, trials: int, seed: int) -> list[int]:
    """Run the study with `kills` SIGKILLs spread over it; returns finished trials at each."""
    chance = random.Random(seed)
    targets = sorted(chance.randrange(0, trials - 2) for _ in range(kills))
    seen = []
    for target in targets:
        process = subprocess.Popen(command(folder, study), stdout=subprocess.DEVNULL)
        if target == 0 or chance.random() < 0.2:  # some die before any trial can run
            time.sleep(chance.uniform(0.5, 8))
        else:
            while finished(study) < target and process.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.5))
        if process.poll() is not None:
            raise SystemExit(f"the driver ended by itself with {process.returncode}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(finished(study))
        print(f"kill {len(seen)}: {seen[-1]} trials finished", flush=True)
    subprocess.run(command(folder, study), check=True, stdout=subprocess.DEVNULL)
    return seen


def trial_table(study: Path) -> list[tuple[object, ...]]:
    """Everything that should not depend on kills."""
    return [
        (t.number, t.state.name, t.score, t.params, t.effect)
        for t in StudyRecord.read(study).trials
    ]


def evaluations(study: Path) -> Counter[str]:
    """How often each trial was evaluated to its end, from the workers' own logs."""
    events = [
        json.loads(line)
        for path in sorted((study / "logs").glob("*.jsonl"))
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    return Counter(
        event["effect"]
        for event in events
        if event["event"] == "done"
        and not event["job"].startswith("screen")
        and not event["job"].endswith("-test")
        and "-guard-" not in event["job"]
    )


def main() -> int:
    """Run both studies and print the verdict; 0 if every law holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--questions", type=int, default=2304, help="of the demo's")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_config(config_of(folder, asked.trials, asked.questions), folder / "study.yaml")
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run(command(folder, whole), check=True, stdout=subprocess.DEVNULL)
        seen = kill_at_random(folder, killed, asked.kills, asked.trials, asked.seed)
        record, reference = StudyRecord.read(killed), StudyRecord.read(whole)
        trials = record.trials
        winner, expected = record.summary.winner, reference.summary.winner
        counts = evaluations(killed)
        laws = {
            "finished trials are exactly those asked for": len(trials) == asked.trials,
            "no trial is left running": record.summary.running == 0,
            "no composition was evaluated twice": max(counts.values()) == 1,
            "every finished trial was evaluated": len(counts) == asked.trials + 1,
            "the same winner": winner is not None
            and expected is not None
            and winner.params == expected.params,
            "trial by trial the same study": trial_table(killed) == trial_table(whole),
            "the same verdict": record.result == reference.result,
        }
        print(f"{asked.kills} kills at {seen} finished trials of {asked.trials}")
        for law, holds in laws.items():
            print(f"{'holds' if holds else 'BROKEN'}: {law}")
    return 0 if all(laws.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
