"""Seeded studies in which everything goes wrong that can, against the same studies left alone.

    python benchmarks/chaos.py --runs 50

Every run draws one to three faults and the moments at which they strike: SIGKILL of the driver, of
the worker, of the raylet; a journal torn in the middle of a line; a full disk (as root, on a small
tmpfs of its own); a worker that hangs; SIGTERM of the driver and of the worker; a second driver.
Each run must end with exactly the trials asked for and none running; with no finished trial lost,
changed or evaluated twice; with the same trials as the fault-free study of the same seed; and with
no process left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

MARK = "LASER_SEARCH_CHAOS"
STUDIES = 2
"""Different studies, each with a fault-free reference for either strategy."""

ENDS_DRIVER = {
    "kill driver": -signal.SIGKILL,
    "tear journal": -signal.SIGKILL,
    "terminate driver": 75,
    "fill disk": 1,
    "kill raylet": None,
}
FAULTS = [*ENDS_DRIVER, "kill worker", "hang worker", "terminate worker", "second driver"]
PATIENCE_S = 600.0
TOO_BUSY = "timed out during startup"
"""What Ray says when its processes take longer than 30 s to start."""


@dataclass
class Run:
    """One study under faults: `folder` holds it, `plan` says after how many trials what strikes."""

    folder: Path
    mark: str
    plan: list[tuple[int, str]]
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    driver: int = 0

    @property
    def study(self) -> Path:
        """The study folder."""
        return self.folder / "study"

    def law(self, holds: bool, text: str) -> None:
        """Note a law that does not hold."""
        if not holds:
            self.broken.append(text)


def fork(work: Callable[[], Any], mark: str = "", out: Path | None = None) -> int:
    """Run `work` in a child that has imported everything already; its exit code is what it says."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        if mark:
            os.environ[MARK] = mark
        if out is not None:
            handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
        code = work() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def asked(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a child: this process stays without threads."""
    read, write = os.pipe()
    pid = fork(lambda: os.write(write, json.dumps(work()).encode()) * 0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    return json.loads(data)


def drive(run: Run) -> int:
    """Start the study's driver, or resume it once it has begun; returns its process id."""
    run.driver = start(run)
    return run.driver


def start(run: Run) -> int:
    """Start a driver, be it the one or a second one."""
    from cluster.cli import main

    begun = (run.study / "study.json").exists()
    words = ["resume", str(run.study)] if begun else ["launch", str(run.folder / "study.yaml")]
    words += ["--quiet"] if begun else ["--out", str(run.study), "--quiet"]

    def work() -> None:
        sys.argv = ["laser-search", *words]
        main()

    return fork(work, run.mark, run.folder / "driver.log")


def ended(pid: int) -> int | None:
    """The exit code of a child, minus its signal, or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def settle(run: Run, pid: int, until: Callable[[], bool] = lambda: False) -> tuple[int, int | None]:
    """Wait as `wait` does, and start the driver anew where the machine was too busy for Ray."""
    for _ in range(8):
        code = wait(pid, until)
        log = (run.folder / "driver.log").read_text(errors="replace")[-2000:]
        if code in (None, 0) or TOO_BUSY not in log:
            break
        (run.folder / "driver.log").write_text("")
        run.notes.append("Ray did not start")
        pid = drive(run)
    return pid, code


def wait(pid: int, until: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for a driver to end or for `until`; its exit code, or None if `until` came first."""
    deadline = time.monotonic() + PATIENCE_S
    while (code := ended(pid)) is None and not until():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"the driver did not move for {PATIENCE_S:g} s")
        time.sleep(0.05)
    return code


def finished(run: Run) -> int:
    """Trials whose outcomes are there."""
    return len(list(run.study.glob("outcomes/trial-*[0-9].parquet")))


def is_ready(run: Run, after: int) -> bool:
    """Whether there are a worker and `after` finished trials."""
    return finished(run) >= after and worker_of(run) is not None


def worker_of(run: Run) -> int | None:
    """The living worker that wrote last, if it is the present driver's: a killed one's lives on."""
    logs = sorted(run.study.glob("logs/worker-*.jsonl"), key=lambda path: path.stat().st_mtime)
    pid = int(logs[-1].stem.rsplit("-", 1)[1]) if logs else 0
    with suppress(psutil.NoSuchProcess):
        return pid if run.driver in [p.pid for p in psutil.Process(pid).parents()] else None
    return None


def is_marked(process: Path, mark: str) -> bool:
    """Whether a process lives that was started with this mark."""
    with suppress(OSError):
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    return False


def marked(mark: str) -> dict[int, str]:
    """Living processes of a run that were started with its mark, by id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        if is_marked(path, mark):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                found[int(path.name)] = b" ".join(words).decode(errors="replace")[:160]
    return found


def table(study: Path) -> dict[str, Any]:
    """Everything that should not depend on faults."""
    from search.study.study_record import StudyRecord
    from tasks.errors import InputError

    try:
        record = StudyRecord.read(study)
    except InputError:
        return {"trials": {}, "running": 0, "asked": 0, "effects": []}
    rows = {
        str(t.number): [t.state.name, t.score, t.params, t.effect]
        for t in record.trials
        if t.state.is_finished()
    }
    return {
        "trials": rows,
        "effects": sorted({str(t.effect) for t in record.trials}),
        "running": record.summary.running,
        "asked": record.summary.asked,
        "result": record.result,
        "failures": record.summary.failures,
    }


def strike(run: Run, fault: str, pid: int, raylets: Sequence[int]) -> None:
    """Let one thing go wrong while the driver `pid` runs."""
    if fault in ("kill driver", "tear journal"):
        os.kill(pid, signal.SIGKILL)
    elif fault == "terminate driver":
        os.kill(pid, signal.SIGTERM)
    elif fault == "kill raylet":
        for one in raylets:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    elif fault == "fill disk":
        with suppress(OSError), (run.study / "ballast").open("wb", buffering=0) as stream:
            while stream.write(b"\0" * 4096):
                pass
    elif fault == "second driver":
        second(run, pid)
    else:
        number = {"kill worker": signal.SIGKILL, "hang worker": signal.SIGSTOP}
        if (worker := worker_of(run)) is not None:
            with suppress(ProcessLookupError):
                os.kill(worker, number.get(fault, signal.SIGTERM))


def second(run: Run, first: int) -> None:
    """Another driver must be refused, with who holds the study.

    The `first` is suspended meanwhile: on a fast machine it would end before the other is there.
    """
    os.kill(first, signal.SIGSTOP)
    over = (run.study / "result.json").exists()
    try:
        log = run.folder / "driver.log"
        before = log.stat().st_size
        code = wait(start(run))
        said = log.read_text(errors="replace")[before:]
    finally:
        os.kill(first, signal.SIGCONT)
    told = code == 2 and f"pid {first}" in said
    # A driver whose study has ended holds it no more, and another only reads it.
    run.law(told or (over and code == 0), f"a second driver is refused ({code}: {said[-200:]!r})")


def mend(run: Run, fault: str) -> None:
    """What the world does after a fault, before the study is resumed."""
    if fault == "tear journal" and (run.study / "study.journal").exists():
        with (run.study / "study.journal").open("ab") as stream:
            stream.write(b'{"op_code":4,"worker_id":"torn')
        with suppress(FileExistsError):
            (run.study / "study.journal.lock").symlink_to("study.journal")
    (run.study / "ballast").unlink(missing_ok=True)


def suffer(run: Run) -> None:
    """Launch, let every fault of the plan strike in its turn, resume until the end."""
    pid = drive(run)
    kept: dict[str, Any] = {}
    for after, fault in run.plan:
        pid, code = settle(run, pid, lambda: worker_of(run) is not None)
        raylets = [p for p, words in marked(run.mark).items() if "/raylet/raylet " in words]
        if code is None:
            pid, code = settle(run, pid, partial(is_ready, run, after))
        if code is None:
            run.notes.append(f"{fault} at {finished(run)}")
            strike(run, fault, pid, raylets)
            if fault not in ENDS_DRIVER:
                continue
            code, expected = wait(pid), ENDS_DRIVER[fault]
            fine = expected is None or code in (expected, 0)  # 0: it was at its end already
            run.law(fine, f"after {fault!r} the driver ended with {code}")
            mend(run, fault)
        elif code not in (0, 1):
            run.law(False, f"the driver ended with {code} by itself before {fault!r}")
        kept |= asked(lambda: table(run.study))["trials"]
        pid = drive(run)
    for _ in range(3):  # a baseline that hung ends the driver with a sentence
        pid, code = settle(run, pid)
        if code == 0:
            break
        run.notes.append(f"resumed after {code}")
        pid = drive(run)
    run.law(code == 0, f"the last resume ended with {code}")
    judge_kept(run, kept)


def judge_kept(run: Run, kept: dict[str, Any]) -> None:
    now = asked(lambda: table(run.study))["trials"]
    lost = [number for number, row in kept.items() if now.get(number) != row]
    run.law(not lost, f"trials {lost} were lost or changed")


def judge(run: Run, reference: Path) -> None:
    """Hold the ended study against the laws."""
    found, whole = asked(lambda: table(run.study)), asked(lambda: table(reference))
    count = len(found["effects"])
    run.law(count == found["asked"] == whole["asked"], f"{count} trials of {whole['asked']}")
    run.law(found["running"] == 0, f"{found['running']} trials left running")
    faults = {fault for _, fault in run.plan}
    done = Counter(
        json.loads(line)["job"]
        for path in run.study.glob("logs/*.jsonl")
        for line in path.read_text(errors="replace").splitlines()
        if line.endswith("}") and '"done"' in line
    )
    twice = [job for job, times in done.items() if times > 1]
    # What a full disk did not take was never finished, although its worker had been done.
    run.law(not twice or "fill disk" in faults, f"evaluated twice: {twice}")
    params = [[row[2] for row in table["trials"].values()] for table in (found, whole)]
    run.law(params[0] == params[1], "other compositions than without faults")
    if not found["failures"]:
        run.law(found["trials"] == whole["trials"], "other values than without faults")
        run.law(found["result"] == whole["result"], "another verdict than without faults")
    allowed = "hang worker" in faults and all("no result" in r for r in found["failures"])
    run.law(not found["failures"] or allowed, f"failures: {found['failures']}")


def orphans(mark: str, patience_s: float) -> dict[int, str]:
    """What a run left behind after `patience_s` at most."""
    deadline = time.monotonic() + patience_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


@contextmanager
def disk(folder: Path, small: bool) -> Iterator[None]:
    """A small file system of its own in `folder`, where that is allowed and wanted."""
    folder.mkdir(parents=True)
    if small:
        options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
        subprocess.run(["mount", *options], check=True)
    try:
        yield
    finally:
        if small:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def draw(seed: int, trials: int) -> tuple[str, list[tuple[int, str]]]:
    """The strategy and the plan of run number `seed`: the first faults take turns."""
    chance = random.Random(f"chaos/{seed}")
    faults = FAULTS if os.geteuid() == 0 else [f for f in FAULTS if f != "fill disk"]
    chosen = [faults[seed % len(faults)]]
    chosen += chance.choices(faults, k=chance.choice([0, 0, 0, 1, 1, 2]))
    plan = list(zip(sorted(chance.sample(range(trials), len(chosen))), chosen, strict=True))
    # TPE learns from a trial that hung and so failed; uniform draws do not.
    return "random" if "hang worker" in chosen else "tpe", plan


def one_run(seed: int, where: Path, trials: int) -> bool:
    """One run from its launch to its verdict; prints a line."""
    strategy, plan = draw(seed, trials)
    faults = {fault for _, fault in plan}
    run = Run(where / f"run-{seed}", f"{os.getpid()}-{seed}", plan)
    started = time.monotonic()
    with disk(run.folder, "fill disk" in faults):
        try:
            write_study(run.folder, where, seed % STUDIES, strategy, trials)
            suffer(run)
            judge(run, where / f"{strategy}-{seed % STUDIES}" / "study")
        except Exception as error:
            run.broken.append(f"{type(error).__name__}: {error}")
        over = time.monotonic()
        left = orphans(run.mark, 60)
        run.notes.append(f"tidy after {time.monotonic() - over:.0f} s")
        run.law(not left, f"left behind: {left}")
        if run.broken:
            log = run.folder / "driver.log"
            run.broken.append(log.read_text(errors="replace")[-1500:] if log.exists() else "")
    verdict = f"BROKEN: {run.broken}" if run.broken else "holds"
    seconds = time.monotonic() - started
    print(
        f"run {seed} ({strategy}, {seconds:.0f} s): {', '.join(run.notes)}: {verdict}", flush=True
    )
    return not run.broken


def write_study(folder: Path, where: Path, seed: int, strategy: str, trials: int) -> None:
    """The demo's model on few questions, one worker, so that the seed fixes the order of trials."""
    from search.config import write_config
    from search.demo.study import demo_config

    config = demo_config(folder, trials)
    few = Path(str(config.task.data)).read_text(encoding="utf-8").splitlines(keepends=True)[:144]
    folder.mkdir(exist_ok=True)
    (folder / "questions.jsonl").write_text("".join(few), encoding="utf-8")
    task = config.task.model_copy(update={"data": str(folder / "questions.jsonl")})
    limits = {"max_concurrent": 1, "trial_timeout_s": 60.0}
    changed = {
        "task": task,
        "factors": str(where / "factors"),
        "cluster": config.cluster.model_copy(update=limits),
        "search": config.search.model_copy(update={"seed": seed, "strategy": strategy}),
    }
    write_config(config.model_copy(update=changed), folder / "study.yaml")


def reference(where: Path, strategy: str, seed: int, trials: int) -> bool:
    """The fault-free study of one seed and strategy."""
    run = Run(where / f"{strategy}-{seed}", f"{os.getpid()}-{strategy}-{seed}", [])
    if (run.study / "result.json").exists():
        return True
    run.folder.mkdir(parents=True)
    write_study(run.folder, where, seed, strategy, trials)
    _, code = settle(run, drive(run))
    if code != 0:
        said = (run.folder / "driver.log").read_text(errors="replace")[-3000:]
        print(f"the reference {strategy} {seed} ended with {code}: {said}", flush=True)
    return code == 0


def held(works: Iterable[Callable[[], bool]], parallel: int) -> int:
    """Do works in children, `parallel` at a time; how many of them hold."""
    count, running = 0, 0
    for work in works:
        if running == parallel:
            count += os.waitstatus_to_exitcode(os.wait()[1]) == 0
            running -= 1
        fork(lambda work=work: os.setsid() or not work())
        running += 1
    return count + sum(os.waitstatus_to_exitcode(os.wait()[1]) == 0 for _ in range(running))


def preload() -> None:
    """Import once what every driver needs, after the settings that Ray reads when it is imported.

    One worker for whatever machine, with the priority of all else.
    """
    from cluster.session import LOCAL_SETTINGS, SETTINGS

    os.environ |= {
        **SETTINGS,
        **LOCAL_SETTINGS,
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}',
    }
    import torch

    import cluster.cli
    import cluster.driver
    import cluster.precompute
    import cluster.tune_search
    import cluster.view
    import cluster.worker  # noqa: F401
    import search.report.text  # noqa: F401

    torch.set_num_threads(1)
    for module in asked(lately_imported):
        with suppress(Exception):
            import_module(module)


def lately_imported() -> list[str]:
    """Modules that are imported only when a study is planned."""
    from search.config import read_config
    from search.plan import make_plan

    before = set(sys.modules)
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "plan", Path(folder), 0, "tpe", 2)
        make_plan(read_config(Path(folder) / "plan" / "study.yaml"))
    return sorted(set(sys.modules) - before)


def main() -> int:
    """Run them all, some at a time; 0 if every law holds in every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first run's number")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--folder", type=Path, help="keep references there for the next call")
    options = parser.parse_args()
    preload()
    seeds = range(options.first, options.first + options.runs)
    wanted = sorted({(draw(seed, options.trials)[0], seed % STUDIES) for seed in seeds})
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        where = options.folder or Path(scratch)
        known = [partial(reference, where, *which, options.trials) for which in wanted]
        if held(known, options.parallel) < len(wanted):
            return 1
        runs = [partial(one_run, seed, where, options.trials) for seed in seeds]
        count = held(runs, options.parallel)
    print(f"{count} of {options.runs} runs hold")
    return 0 if count == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
