"""Seconds by the clock from the start of a launch until a worker is ready and the first trial runs.

    python benchmarks/first_trial.py STUDY.yaml
    python benchmarks/first_trial.py STUDY.yaml --code ../before --code .
    python benchmarks/first_trial.py --billion ./billion

Each checkout named by `--code` (by default this one) launches the study twice, with a factor cache
of its own: with no factors there, and with all of them. A launch is ended at its first trial.
`--billion` first writes a model of 1.2 billion random weights, 16 blocks of Llama's shape in
bfloat16, and a study of the MLP of its last four blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from seven_billion import LAST, Shape, write_model, write_questions

MOST_S = 1800.0
BILLION = Shape(width=2048, inner=8192, blocks=16, heads=32, words=32000, shard_blocks=16)


def billion(out: Path) -> Path:
    """Write the model and its study."""
    write_model(out / "model", BILLION)
    write_questions(out / "questions.jsonl", BILLION.words, 96)
    settings = {
        # On a CPU, bfloat16 without instructions for it is several times slower.
        "model": {"path": str(out / "model"), "dtype": "float32"},
        "task": {"name": "jsonl", "data": str(out / "questions.jsonl")},
        "split": {"validation": 0.5},
        "space": {
            "layers": [f"{BILLION.blocks - LAST}-{BILLION.blocks - 1}"],
            "matrices": ["fc_in", "fc_up", "fc_out"],
            "rho": [0.9, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01],
        },
        "search": {"trials": 20},
    }
    study = out / "study.yaml"
    study.write_text(yaml.safe_dump(settings))
    return study


def seconds(study: Path, code: Path, out: Path) -> dict[str, float]:
    """Launch `study` into `out` by the program in `code`, and end it at its first trial."""
    began = time.time()
    program = subprocess.Popen(
        # -P: the program of `code`, not that of the folder that this was started in.
        [sys.executable, "-P", "-m", "laser_search", "launch", str(study), "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(code)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    marks: dict[str, float] = {}
    try:
        while "first trial" not in marks:
            if program.poll() is not None or time.time() - began > MOST_S:
                raise SystemExit(f"the launch had no trial after {time.time() - began:.0f} s")
            time.sleep(0.2)
            for path in out.glob("logs/worker*.jsonl"):
                for line in path.read_text().splitlines():
                    note(marks, line, began)
    finally:
        program.terminate()
        program.wait(300)
    return marks


def note(marks: dict[str, float], line: str, began: float) -> None:
    """Add what a line of a worker's log says; the last one may be torn."""
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return
    if event["event"] == "setup":
        marks.setdefault("a worker is ready", event["time"] - began)
    if event["event"] == "start" and str(event.get("job")).startswith("trial-"):
        marks.setdefault("first trial", event["time"] - began)


def main() -> None:
    """Print a line for each launch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, nargs="?")
    parser.add_argument("--billion", type=Path, help="write such a model here, and search it")
    parser.add_argument("--code", type=Path, action="append", help="a checkout of this project")
    asked = parser.parse_args()
    if (asked.study is None) == (asked.billion is None):
        parser.error("name a study or --billion")
    study = asked.study or billion(asked.billion.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        for n, code in enumerate(asked.code or [Path(__file__).parents[1]]):
            own = yaml.safe_load(study.read_text()) | {"factors": f"{scratch}/factors-{n}"}
            path = Path(scratch) / f"study-{n}.yaml"
            path.write_text(yaml.safe_dump(own))
            for factors in ("no factors", "factors there"):
                out = Path(scratch) / f"{n}-{factors.replace(' ', '-')}"
                marks = seconds(path, code.resolve(), out)
                said = ", ".join(f"{what} {spent:.1f} s" for what, spent in marks.items())
                print(f"{code}, {factors}: {said}", flush=True)


if __name__ == "__main__":
    main()
