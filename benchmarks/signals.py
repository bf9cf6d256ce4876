"""SIGTERM, SIGHUP and Ctrl-C to a driver, and to its whole group, from its start to its verdict.

    python benchmarks/signals.py [--moments 20] [--first 0] [--single] [--resume-every 10]

Each of the runs launches a tiny study of the demo's model afresh, its factors included, and strikes
once. What must hold: the driver ends within its grace and 15 s, with the documented code and one
sentence that says how to go on, without a traceback, and leaves no process and no folder behind.
Of some runs the study is then resumed to its end. Times are as slow as the machine is busy: the
moments are fractions of the time that a study took undisturbed just before.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "LASER_SEARCH_SIGNALS"
GRACE_S = 3.0
SPARE_S = 15.0
CODES = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}


@dataclass(frozen=True)
class Strike:
    """One run: which signal, to whom, after how many seconds."""

    number: signal.Signals
    group: bool
    after_s: float


def write_study(folder: Path, trials: int) -> Path:
    """The demo's model, few questions, one worker, factors of its own."""
    import laser_search  # noqa: F401 - finds the three packages
    from search.config import write_config
    from search.demo.study import demo_config

    folder.mkdir(parents=True)
    config = demo_config(folder, trials)
    few = Path(str(config.task.data)).read_text(encoding="utf-8").splitlines(keepends=True)[:144]
    (folder / "questions.jsonl").write_text("".join(few), encoding="utf-8")
    changed = {
        "task": config.task.model_copy(update={"data": str(folder / "questions.jsonl")}),
        "factors": str(folder / "factors"),
        "cluster": config.cluster.model_copy(update={"max_concurrent": 1, "grace_s": GRACE_S}),
    }
    write_config(config.model_copy(update=changed), folder / "study.yaml")
    return folder / "study.yaml"


def start(words: list[object], log: Path, mark: str) -> subprocess.Popen[bytes]:
    """The program in a group of its own, as a terminal or `timeout` would start it."""
    environment = {**os.environ, MARK: mark, "TMPDIR": str(log.parent / "tmp")}
    # One worker on one thread: two on the demo's tiny tensors mostly wait for one another.
    environment["RAY_OVERRIDE_RESOURCES"] = '{"CPU": 1}'
    (log.parent / "tmp").mkdir(exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "laser_search", *map(str, words)],
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )


def marked(mark: str) -> list[str]:
    """Living processes of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
    return found


def hears(pid: int) -> bool:
    """Whether the program takes SIGTERM. While Python starts, a signal has its usual effect."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        (caught,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
        return bool(caught >> (signal.SIGTERM - 1) & 1)
    return False


def one_run(folder: Path, strike: Strike, trials: int, resume: bool) -> list[str]:
    """Strike once; returns what did not hold."""
    study = write_study(folder, trials)
    log, mark = folder / "log", f"{os.getpid()}-{folder.name}"
    driver = start(["launch", study, "--out", folder / "study"], log, mark)
    time.sleep(strike.after_s)
    over = driver.poll() is not None
    heard = hears(driver.pid)
    with suppress(ProcessLookupError):
        (os.killpg if strike.group else os.kill)(driver.pid, strike.number)
    struck = time.monotonic()
    broken = []
    try:
        code = driver.wait(GRACE_S + SPARE_S)
    except subprocess.TimeoutExpired:
        driver.kill()
        print(f"{strike}: hung for {GRACE_S + SPARE_S:.0f} s", flush=True)
        return ["hung"]
    took = time.monotonic() - struck
    said = log.read_text(encoding="utf-8", errors="replace")
    booting = not (over or heard) and code in (-strike.number, 1)
    finished = code == 0 and (folder / "study" / "result.json").exists()
    if not (over or booting or finished or code == CODES[strike.number]):
        broken.append(f"code {code}")
    if not (booting or finished) and said.count("; continue with: ") != 1:
        broken.append(f"no sentence: {said[-300:]!r}")
    if "Traceback" in said and not booting:
        broken.append(f"a traceback: {said[-600:]!r}")
    deadline = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        broken.append(f"processes: {left}")
    if resume:
        begun = (folder / "study" / "study.json").exists()
        words = ["resume", folder / "study"]
        again = start(words if begun else ["launch", study, "--out", folder / "study"], log, mark)
        if (last := again.wait(900)) != 0:
            broken.append(f"resumed with {last}: {log.read_text(errors='replace')[-600:]!r}")
    # The folder of all of a user's scratch folders stays, empty.
    own = folder / "tmp" / f"laser-search-{os.getuid()}"
    kept = [p.name for p in (folder / "tmp").glob("laser-search-*") if p != own or any(p.iterdir())]
    if kept and not booting and (resume or took < 4.5):  # an end in haste leaves them to the next
        broken.append(f"folders: {kept}")
    who = "group" if strike.group else "driver"
    print(
        f"{strike.number.name} to {who} at {strike.after_s:.1f} s: {code} after {took:.1f} s"
        f"{', resumed' if resume else ''}: {broken or 'holds'}",
        flush=True,
    )
    return broken


def main() -> int:
    """Run them all; 0 if every law holds in every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="begin with this moment")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--resume-every", type=int, default=10)
    parser.add_argument("--single", action="store_true", help="of the six kinds one a moment")
    options = parser.parse_args()
    # Under nohup, or in the background of a script, they are ignored, and would be in the drivers.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="signals-", ignore_cleanup_errors=True) as name:
        where = Path(name)
        began = time.monotonic()
        study = write_study(where / "whole", options.trials)
        whole = start(["launch", study, "--out", where / "whole" / "study"], where / "log", "whole")
        if whole.wait(600) != 0:
            print((where / "log").read_text(errors="replace"))
            return 1
        length = time.monotonic() - began
        print(f"undisturbed: {length:.1f} s", flush=True)
        results: Counter[bool] = Counter()
        for moment in range(options.first, options.moments):
            for number in CODES:
                for group in (False, True):
                    kind = 2 * list(CODES).index(number) + group
                    if options.single and moment % 6 != kind:
                        continue
                    strike = Strike(number, group, length * (moment + 0.5) / options.moments)
                    count = results.total()
                    resume = count % options.resume_every == options.resume_every - 1
                    broken = one_run(where / f"run-{count}", strike, options.trials, resume)
                    results[not broken] += 1
    print(f"{results[True]} of {results.total()} runs hold")
    return 0 if results[True] == results.total() else 1


if __name__ == "__main__":
    sys.exit(main())
