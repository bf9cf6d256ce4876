"""Where the time of a demo trial goes, from the study that `laser-search demo` leaves.

    python benchmarks/demo_cost.py [--workers N]

Prints trials per second and, per evaluated trial, milliseconds of apply, forward, score and
restore inside the worker, and of everything else (Ray Tune, Optuna, the journal), which is the
workers' wall time divided by trials minus the worker's own total.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from search.config import write_config
from search.demo.study import demo_config
from search.study.study_record import StudyRecord


def main() -> None:
    """Run the demo's study and print the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = demo_config(folder, asked.trials)
        cluster = config.cluster.model_copy(update={"max_concurrent": asked.workers})
        write_config(config.model_copy(update={"cluster": cluster}), folder / "study.yaml")
        launch = [sys.executable, "-m", "cluster.cli", "launch", str(folder / "study.yaml")]
        subprocess.run([*launch, "--out", str(folder / "study"), "--quiet"], check=True)
        record = StudyRecord.read(folder / "study")
        found = parts(record, events(folder / "study"), asked.workers)
    print(json.dumps(found, indent=2))


def events(study: Path) -> list[dict[str, object]]:
    """The workers' logs."""
    return [
        json.loads(line)
        for path in (study / "logs").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]


def parts(
    record: StudyRecord, log: list[dict[str, object]], workers: int
) -> dict[str, float | dict[str, float]]:
    """Trials per second, and milliseconds per trial by part."""
    trials = [t for t in record.trials if t.seconds]
    starts = [float(str(e["time"])) for e in log if e["event"] == "start"]
    ends = [float(str(e["time"])) for e in log if e["event"] == "done"]
    wall_s = max(ends) - min(starts)
    mean = {
        name: 1000 * sum(t.seconds[name] for t in trials) / len(trials)
        for name in ("record", "apply", "forward", "score", "total")
    }
    rest = 1000 * wall_s * workers / len(trials) - mean["total"]
    rounded = {name: round(value, 2) for name, value in {**mean, "rest": rest}.items()}
    return {
        "trials": len(trials),
        "trials_per_s": round(len(trials) / wall_s, 2),
        "ms_per_trial": rounded,
    }


if __name__ == "__main__":
    main()
