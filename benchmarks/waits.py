"""How long the program's commands keep their user waiting: first line, silence, processor time.

    python benchmarks/waits.py --out DIR [--program PATH] [--before DIR]

Each command runs in a process of its own whose output is read through a pipe: seconds to its first
line, the longest silence (between two lines, or before the first or after the last), seconds in
all, and seconds of processor time. A study is launched first; what looks at a study looks at that
one. `--program` is the `laser-search` of another environment, so that another version is measured;
`--before` is the DIR of its measurement, which is printed beside. The last command asks for a data
set of the hub, and is of interest where there is no network. DIR must not exist.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parents[1] / "search" / "demo"
QUESTIONS = 300
TRIALS = 60

WAITS: dict[str, tuple[str, ...]] = {
    "launch": ("launch", "study.yaml", "--out", "my-study"),
    "status": ("status", "my-study"),
    "resume, finished": ("resume", "my-study"),
    "evaluate": (
        *("evaluate", "./model", "--task", "jsonl", "--data", "questions.jsonl"),
        *("--intervention", "2.fc_in=0.01"),
    ),
    "heal": (
        *("heal", "my-study", "--train", "train.jsonl", "--steps", "20", "--out", "healed"),
        *("--method", "factors"),
    ),
    "spectra": ("spectra", "./model", "--out", "spectra"),
    "evaluate, data of the hub": (
        *("evaluate", "./model", "--task", "sst2", "--intervention", "2.fc_in=0.01"),
    ),
}


def prepare(root: Path) -> None:
    """The demo's model as a user's, questions of its own, and a study.yaml."""
    shutil.copytree(DEMO / "model", root / "model")
    lines = (DEMO / "questions.jsonl").read_text().splitlines(keepends=True)
    (root / "questions.jsonl").write_text("".join(lines[:QUESTIONS]))
    (root / "train.jsonl").write_text("".join(lines[QUESTIONS : 2 * QUESTIONS]))
    (root / "study.yaml").write_text(
        "model: {path: ./model}\ntask: {name: jsonl, data: ./questions.jsonl}\n"
        f"split: {{validation: 0.4}}\nsearch: {{trials: {TRIALS}}}\nfactors: ./factors\n"
    )


def measure(words: Sequence[str], folder: Path, log: Path) -> dict[str, float]:
    """Seconds to the first line, of the longest silence, in all, and of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = last = time.monotonic()
    first, silence = 0.0, 0.0
    with (
        log.open("ab") as stream,
        subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select() and (said := os.read(process.stdout.fileno(), 65536)):
            now = time.monotonic()
            first = first or now - started
            silence, last = max(silence, now - last), now
            stream.write(said)
        code = process.wait()
    ended = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "first line": first,
        "silence": max(silence, ended - last),
        "in all": ended - started,
        "processor": spent,
        "exit code": code,
    }


def row(name: str, found: dict[str, float], before: dict[str, float] | None) -> str:
    """A row of a Markdown table; what was measured before stands first."""
    cells = []
    for key in ("first line", "silence", "in all", "processor"):
        now = f"{found[key]:.1f}"
        cells.append(now if before is None else f"{before[key]:.1f} → {now}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    """Measure every wait."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--program", default=str(Path(sys.executable).parent / "laser-search"))
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True)
    prepare(out)
    known: dict[str, Any] = {}
    if given.before is not None:
        known = json.loads((given.before / "waits.json").read_text())
    found = {}
    print("| command | first line, s | longest silence, s | in all, s | processor, s |")
    print("|---|---|---|---|---|")
    for name, words in WAITS.items():
        found[name] = measure([given.program, *words], out, out / "output.txt")
        print(row(name, found[name], known.get(name)), flush=True)
    (out / "waits.json").write_text(json.dumps(found, indent=2))
    offline = [name for name in found if "hub" in name]
    wrong = [name for name, one in found.items() if one["exit code"] and name not in offline]
    print(f"failed, see {out / 'output.txt'}: {', '.join(wrong)}" if wrong else "all ended with 0")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
