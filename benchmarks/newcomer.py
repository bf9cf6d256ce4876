"""A newcomer's path, timed and checked: the demo, then a model and questions of one's own.

    python benchmarks/newcomer.py --out DIR [--install]

The demo; a study of a local model with 300 questions: plan, launch, Ctrl-C after 30 trials, resume
with 50 trials more, status, report; a cut that is known; export, and the exported model in plain
transformers. Prints the seconds of each step, to its first line and in all, and writes them to
DIR/times.json. Exits with 1 if a step ends otherwise than a user may expect. With `--install` an
environment is made first, by the README's command, from the package index. DIR must not exist.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "search" / "demo"
QUESTIONS = 300
INTERRUPTED_AT = 30
MORE = 50
TRIALS = 200

STUDY = f"""\
model: {{path: ./model}}
task: {{name: jsonl, data: ./questions.jsonl}}
split: {{validation: 0.2, seed: 0}}
space: {{layers: all, matrices: [fc_in, fc_out], rho: [.9, .8, .6, .4, .2, .1, .05, .01, .005],
        max_interventions: 3}}
search: {{strategy: auto, trials: {TRIALS}, seed: 0}}
factors: ./factors
"""

LOADS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("my-model")
tokenizer = AutoTokenizer.from_pretrained("my-model")
words = tokenizer("Jeremy likes", return_tensors="pt")
print(tokenizer.decode(model.generate(**words, max_new_tokens=5, do_sample=False)[0]))
"""


class Path300:
    """The steps in `folder`, by the program of an environment, with what each took."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self.program = str(bin_folder / "laser-search")
        self.python = str(bin_folder / "python")
        self.times: dict[str, dict[str, float]] = {}
        self.wrong: list[str] = []

    def step(
        self,
        name: str,
        words: Sequence[str],
        says: str = "",
        *,
        code: int = 0,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Run a command to its end; with `until`, press Ctrl-C when that is so.

        It must end with `code` and print `says`.
        """
        log = self.folder / f"{len(self.times):02}-{name.replace(' ', '-')}.txt"
        started = time.monotonic()
        first = 0.0
        with log.open("w") as stream:
            process = subprocess.Popen(
                words, cwd=self.folder, stdout=stream, stderr=subprocess.STDOUT
            )
            while process.poll() is None:
                time.sleep(0.05)
                if not first and log.stat().st_size:
                    first = time.monotonic() - started
                if until is not None and until():
                    process.send_signal(signal.SIGINT)
                    until = None
        took = time.monotonic() - started
        self.times[name] = {"first line": first or took, "in all": took}
        right = process.returncode == code and says in log.read_text() and until is None
        print(f"| {name} | {first or took:.1f} | {took:.1f} |", flush=True)
        if not right:
            self.wrong.append(f"{name}: exit code {process.returncode}, see {log}")

    def finished(self) -> int:
        """Trials of the study that left outcomes."""
        return len(list((self.folder / "my-study" / "outcomes").glob("trial-*.parquet")))

    def walk(self) -> None:
        """The whole path after the installation."""
        own = self.program
        self.step("demo", [own, "demo"], "on test")
        shutil.copytree(DEMO / "model", self.folder / "model")
        lines = (DEMO / "questions.jsonl").read_text().splitlines(keepends=True)
        (self.folder / "questions.jsonl").write_text("".join(lines[:QUESTIONS]))
        (self.folder / "study.yaml").write_text(STUDY)
        self.step("plan", [own, "launch", "study.yaml", "--plan"], "time: about")
        self.step(
            f"launch, Ctrl-C at trial {INTERRUPTED_AT}",
            [own, "launch", "study.yaml", "--out", "my-study"],
            "laser-search resume my-study",
            code=130,
            until=lambda: self.finished() >= INTERRUPTED_AT,
        )
        self.step(f"resume, +{MORE}", [own, "resume", "my-study", "--trials", f"+{MORE}"])
        self.step("status", [own, "status", "my-study"], f"trials: {TRIALS + MORE} of")
        self.step("report", [own, "report", "my-study"], "report.html")
        self.step("cut", [own, "cut", "./model", "--intervention", "2.fc_in=0.01", "--out", "cut"])
        # 240 questions of test may not show a gain beyond doubt, so the export is asked for anyway.
        export = [own, "export", "my-study", "--out", "my-model", "--anyway"]
        self.step("export", export, "my-model")
        self.step("load", [self.python, "-c", LOADS], "Jeremy likes")


def main() -> int:
    """Walk the path."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    given = parser.parse_args()
    folder = given.out.resolve()
    folder.mkdir(parents=True)
    # What a script starts in the background ignores Ctrl-C, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = folder / ".venv" / "bin" if given.install else Path(sys.executable).parent
    path = Path300(folder, environment)
    print("| step | first line, s | in all, s |\n|---|---|---|")
    if given.install:
        install = f"python3 -m venv .venv && .venv/bin/pip install -q {ROOT}"
        path.step("install", ["bash", "-ec", install])
    path.walk()
    (folder / "times.json").write_text(json.dumps(path.times, indent=2))
    print("\n".join(path.wrong) or "every step ended as expected")
    return int(bool(path.wrong))


if __name__ == "__main__":
    sys.exit(main())
