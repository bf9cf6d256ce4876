"""What a process withstands, by the rows of docs/log.md: clocks, stops, restarts, other commands.

    python benchmarks/withstand.py WHAT...

WHAT is clock, gc, export, postgresql, memory, stops, commands or orphans.
Each drives small studies of the demo's model with a Ray of their own and one worker, does to them
what its name says, and compares them trial by trial with a study that was left alone. Prints what
it saw, one line each; exit code 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from kill_test import trial_table
from signals import marked, start, write_study

import search.demo
from search.config import read_config, write_config
from search.study.study_record import StudyRecord
from tasks.errors import InputError

PROGRAM = [sys.executable, "-m", "laser_search"]
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) {
  static long seen; static __thread int busy; static __thread unsigned calls;
  if (busy || calls++ % 64) return seen;
  busy = 1;
  FILE *file = fopen(getenv("CLOCK_OFFSET_FILE"), "r");
  long found;
  if (file) { if (fscanf(file, "%ld", &found) == 1) seen = found; fclose(file); }
  busy = 0;
  return seen;
}
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(id, at);
  if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += offset();
  return code;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""
"""The clock of the day moved by the seconds in a file, for whoever preloads it; the monotonic clock
and the times of files stay. libfaketime moves more, and Ray does not start under it."""

LIMIT_S = 3600.0


class Broken(Exception):  # noqa: N818 - says what did not hold
    """A law that did not hold."""


def hold(law: bool, otherwise: str) -> None:
    if not law:
        raise Broken(otherwise)


def finished(study: Path) -> int:
    """Finished trials, as `status` reads them."""
    try:
        return StudyRecord.read(study).summary.finished
    except InputError:
        return 0


def until(holds: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for something that a running driver does."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        said = log.read_text(errors="replace")[-600:]
        hold(driver.poll() is None, f"the driver ended with {driver.returncode}: {said}")
        hold(time.monotonic() < deadline, f"nothing happened in {LIMIT_S:.0f} s: {said}")
        time.sleep(0.2)


def verdict(driver: subprocess.Popen[bytes], study: Path, log: Path) -> None:
    """Wait for the end, which must be one with a verdict."""
    code = driver.wait(LIMIT_S)
    hold(code == 0, f"exit code {code}: {log.read_text(errors='replace')[-900:]}")
    hold((study / "result.json").exists(), "no verdict")


def alone(folder: Path, trials: int) -> list[tuple[object, ...]]:
    """The trials of a study that nothing happens to."""
    study = write_study(folder / "alone", trials)
    log = folder / "alone.log"
    verdict(start(["launch", study, "--out", folder / "alone" / "s"], log, "alone"),
            folder / "alone" / "s", log)  # fmt: skip
    return trial_table(folder / "alone" / "s")


def launched(folder: Path, trials: int) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """A driver in its own group, its study's folder, its log."""
    study = write_study(folder, trials)
    driver = start(["launch", study, "--out", folder / "s"], folder / "log", folder.name)
    return driver, folder / "s", folder / "log"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)


# What is tried --------------------------------------------------------------------------------


def clock(folder: Path) -> Iterator[str]:
    """The clock of driver, Ray and worker is set back an hour after six trials; needs cc."""
    (folder / "clock.c").write_text(CLOCK)
    library, offset = folder / "clock.so", folder / "offset"
    build = ["cc", "-shared", "-fPIC", "-O1", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(build, check=True)
    offset.write_text("0")
    expected = alone(folder, 60)
    moved = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(offset)}
    os.environ.update(moved)
    try:
        driver, study, log = launched(folder / "clock", 60)
    finally:
        for name in moved:
            del os.environ[name]
    until(lambda: finished(study) >= 6, driver, log)
    offset.write_text("-3600")
    seen = finished(study)
    verdict(driver, study, log)
    times = [t.finished for t in StudyRecord.read(study).trials]
    back = min((b - a).total_seconds() for a, b in pairwise(times))
    hold(back < -3000, f"the clock was not seen to go back: {back:.0f} s")
    hold(trial_table(study) == expected, "other trials than undisturbed")
    for words in (["status", study], ["report", study], ["logs", study]):
        said = run(*words)
        hold(said.returncode == 0, said.stderr)
    yield f"set back after {seen} of 60 trials ({back:.0f} s between two): the same 60 trials"


def gc(folder: Path) -> Iterator[str]:
    """`factors gc --yes` again and again beside two studies of two models in one cache."""
    from safetensors.torch import load_file, save_file

    expected = alone(folder, 16)
    drivers = []
    for name in ("a", "b"):
        study = write_study(folder / name, 16)
        config = read_config(study)
        changed = {"factors": str(folder / "factors")}
        if name == "b":  # other weights, so that the cache holds two models
            model = shutil.copytree(config.model.path, folder / "other-model")
            tensors = load_file(model / "model.safetensors")
            tensors = {key: value * 1.001 for key, value in tensors.items()}
            save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
            changed["model"] = config.model.model_copy(update={"path": str(model)})
        write_config(config.model_copy(update=changed), study)
        log = folder / name / "log"
        drivers.append((start(["launch", study, "--out", folder / name / "s"], log, name), log))
    rounds, removed, keep = 0, 0, read_config(folder / "a" / "study.yaml").model.path
    while any(driver.poll() is None for driver, _ in drivers):
        time.sleep(1)
        if not any((folder / "factors").glob("??/*.safetensors")):
            continue
        begun = all(finished(folder / name / "s") for name in ("a", "b"))
        extra = ["--keep-model", keep] if begun else []
        done = run("factors", "gc", folder / "factors", "--yes", *extra)
        hold(done.returncode == 0, done.stderr)
        rounds, removed = rounds + 1, removed + done.stdout.count("factors of")
    for name, (driver, log) in zip(("a", "b"), drivers, strict=True):
        verdict(driver, folder / name / "s", log)
    hold(trial_table(folder / "a" / "s") == expected, "other trials than undisturbed")
    yield (
        f"{rounds} rounds of gc, from the sixth trial on with --keep-model of one, which removed "
        f"{removed} files in use by the other: both to the verdict"
    )


def export(folder: Path) -> Iterator[str]:
    """Dense, factored and patch exports of the best so far, verified, while the study runs."""
    expected = alone(folder, 200)
    driver, study, log = launched(folder / "export", 200)
    until(lambda: finished(study) >= 6, driver, log)
    for form in ("dense", "factored", "patch"):
        out = folder / f"model-{form}"
        done = run("export", study, "--out", out, "--format", form, "--anyway")
        running = driver.poll() is None
        hold(done.returncode == 0, done.stdout + done.stderr)
        yield f"{form} {'while it ran' if running else 'after its end'}: {done.stdout.strip()}"
    verdict(driver, study, log)
    hold(trial_table(study) == expected, "other trials than undisturbed")
    yield "the study: the same 200 trials as undisturbed"


def postgresql(folder: Path) -> Iterator[str]:
    """The database is restarted, then stopped at once for 20 s, while Ray's worker goes on."""
    expected = alone(folder, 24)
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    place = Path(tempfile.mkdtemp(prefix="postgresql"))
    shutil.chown(place, "postgres", "postgres")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={place}"

    def control(*words: object) -> None:
        command = [*user, binaries / "pg_ctl", "-D", place / "data", "-w", "-l", place / "log"]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    quiet = {"stdout": subprocess.DEVNULL, "cwd": "/"}
    words = [*user, binaries / "initdb", "-D", place / "data", "-U", "laser", "-A", "trust"]
    subprocess.run(words, check=True, **quiet)
    control("-o", options, "start")
    try:
        at = ["-h", "127.0.0.1", "-p", str(port), "-U", "laser"]
        subprocess.run([binaries / "createdb", *at, "studies"], check=True, **quiet)
        study = write_study(folder / "db", 24)
        url = f"postgresql://laser@127.0.0.1:{port}/studies"
        write_config(read_config(study).model_copy(update={"storage": url}), study)
        log, out = folder / "db" / "log", folder / "db" / "s"
        driver = start(["launch", study, "--out", out], log, "db")
        until(lambda: finished(out) >= 4, driver, log)
        control("-o", options, "-m", "fast", "restart")
        seen = [finished(out)]
        until(lambda: finished(out) >= seen[0] + 4, driver, log)
        seen.append(finished(out))
        control("-m", "immediate", "stop")
        time.sleep(20)
        hold(driver.poll() is None, f"it ended while the database was away: {log.read_text()}")
        control("-o", options, "start")
        verdict(driver, out, log)
        hold(trial_table(out) == expected, "other trials than with a journal, undisturbed")
        yield f"restarted after {seen[0]} trials, away for 20 s after {seen[1]}: the same 24 trials"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            control("-m", "immediate", "stop")
        shutil.rmtree(place, ignore_errors=True)


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    """The processes that evaluate; Ray names them after what they do at the moment."""
    found = []
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline()[:1])
            if title.startswith("ray::") and ("Worker" in title or "Trainable" in title):
                found.append(process)
    return found


def memory(folder: Path) -> Iterator[str]:
    """Resident memory of driver and worker at each look, over 500 trials."""
    driver, study, log = launched(folder / "memory", 500)
    rows = []
    while driver.poll() is None:
        time.sleep(1)
        done = finished(study)
        if done < 20 or (rows and done <= rows[-1][0]):
            continue
        root = psutil.Process(driver.pid)
        with contextlib.suppress(psutil.Error):
            own = root.memory_info().rss
            workers = workers_of(root)
            rows.append((done, own, sum(p.memory_info().rss for p in workers), len(workers)))
    verdict(driver, study, log)
    hold(len(rows) > 10, f"{len(rows)} looks are too few")
    table = np.array(rows, dtype=float)
    for name, column in (("driver", 1), ("worker", 2)):
        half = table[table[:, 0] >= 250]
        slopes = [np.polyfit(t[:, 0], t[:, column] / 1024, 1)[0] for t in (table, half)]
        first, last = table[0, column] / 2**20, table[-1, column] / 2**20
        yield (
            f"{name}: {first:.0f} MiB at trial {table[0, 0]:.0f}, {last:.0f} MiB at trial "
            f"{table[-1, 0]:.0f}; slope {slopes[0]:.1f} KiB per trial, {slopes[1]:.1f} from trial "
            f"250 on ({len(rows)} looks, {table[:, 3].max():.0f} worker)"
        )


def stops(folder: Path) -> Iterator[str]:
    """SIGSTOP for a minute, then SIGCONT: driver, worker, raylet, GCS, a study for each."""
    expected = alone(folder, 60)
    for name in ("driver", "worker", "raylet", "gcs_server"):
        driver, study, log = launched(folder / name, 60)
        until(lambda study=study: finished(study) >= 2, driver, log)  # type: ignore[misc]
        root = psutil.Process(driver.pid)
        found = {"driver": [root], "worker": workers_of(root)}.get(name) or [
            p for p in root.children(recursive=True) if name in " ".join(p.cmdline()[:1])
        ]
        hold(bool(found), f"{name}: no such process")
        before = finished(study)
        for process in found:
            process.suspend()
        time.sleep(60)
        during = finished(study)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.resume()
        verdict(driver, study, log)
        hold(trial_table(study) == expected, f"{name}: other trials than undisturbed")
        yield f"{name}: {before} trials before, {during} after a minute; the same 60 trials"


def orphans(folder: Path) -> Iterator[str]:
    """SIGKILL of the driver in the search: seconds until each of its processes is gone."""
    driver, study, log = launched(folder / "orphans", 40)
    until(lambda: finished(study) >= 3, driver, log)
    family = psutil.Process(driver.pid).children(recursive=True)
    names = {p.pid: " ".join(p.cmdline()[:1])[-40:] for p in family}
    driver.kill()
    driver.wait()
    killed, gone = time.monotonic(), {}
    while len(gone) < len(names) and time.monotonic() - killed < 120:
        for pid in names.keys() - gone.keys():
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
                gone[pid] = time.monotonic() - killed
        time.sleep(0.1)
    for pid, name in names.items():
        yield f"{name}: {f'{gone[pid]:.1f} s' if pid in gone else 'alive after 120 s'}"
    os.environ["TMPDIR"] = str(log.parent / "tmp")
    left = run("status", study).stdout
    del os.environ["TMPDIR"]
    yield "status: " + (left[left.find("left behind") :].strip() or "nothing left behind")
    hold(len(gone) == len(names), "processes outlive their driver")
    again = start(["resume", study], log, "orphans")
    verdict(again, study, log)
    hold(not marked("orphans"), f"left: {marked('orphans')}")


def commands(folder: Path) -> Iterator[str]:
    """SIGTERM, SIGINT, SIGHUP to decompose, evaluate, export and heal at four moments each."""
    folder = folder / "commands"
    study = write_study(folder, 8)
    config = read_config(study)
    driver = start(["launch", study, "--out", folder / "s"], folder / "log", "commands")
    verdict(driver, folder / "s", folder / "log")
    model, data = config.model.path, str(config.goals[""].data)
    trial = ["--trial", "0"]
    train = folder / "train.jsonl"  # what the study does not ask
    with (Path(search.demo.__file__).parent / "questions.jsonl").open(encoding="utf-8") as lines:
        train.write_text("".join(list(lines)[144:600]), encoding="utf-8")
    made = {
        "decompose": ["decompose", model, "--factors", folder / "out"],
        "evaluate": ["evaluate", model, "--task", "jsonl", "--data", data, "--factors",
                     folder / "out", "--intervention", "1.fc_in=0.1"],
        "export": ["export", folder / "s", "--out", folder / "out", *trial, "--anyway"],
        "heal": ["heal", folder / "s", "--out", folder / "out", *trial, "--train", train,
                 "--steps", "400"],
    }  # fmt: skip
    for name, words in made.items():
        length = _length(words, folder, name)
        told, broken = [], []
        for moment in range(4):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                after_s = length * (moment + 0.5) / 4
                code, wrong = _strike(words, folder, number, after_s, name)
                told.append(code)
                broken += [f"{number.name} at {after_s:.1f} s: {wrong}"] if wrong else []
        whole = run(*words)
        if whole.returncode != 0 and name != "heal":
            broken.append(f"the command itself, afterwards: {whole.stderr[-300:]}")
        _clear(folder)
        counts = {code: told.count(code) for code in sorted(set(told))}
        yield f"{name} ({length:.0f} s): 12 strikes, exit codes {counts}; {broken or 'all hold'}"
        hold(not broken, f"{name}: {broken}")


def _length(words: list[object], folder: Path, name: str) -> float:
    began = time.monotonic()
    done = run(*words)
    hold(done.returncode in (0, 1), f"{name} undisturbed: {done.stdout + done.stderr}")
    length = time.monotonic() - began
    _clear(folder)
    return length


def _clear(folder: Path) -> None:
    for path in [folder / "out", *folder.glob(".out*")]:
        shutil.rmtree(path, ignore_errors=True)


def _strike(
    words: list[object], folder: Path, number: signal.Signals, after_s: float, name: str
) -> tuple[int, str]:
    """Exit code, and what did not hold, empty if all did."""
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)
    process = start(words, log, name)
    time.sleep(after_s)
    process.send_signal(number)
    struck = time.monotonic()
    try:
        code = process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return -9, "hung for 30 s"
    said = log.read_text(errors="replace")
    wrong = _told(said, code, number, early=after_s < 1.5)
    wrong += _left_in(folder, name, haste=time.monotonic() - struck > 4.5)
    deadline = time.monotonic() + 15
    while (left := marked(name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        wrong.append(f"processes: {left}")
    return code, "; ".join(wrong)


def _told(said: str, code: int, number: int, *, early: bool) -> list[str]:
    """What was wrong with the end: a code, one sentence, no traceback. `early`: Python started."""
    wrong = []
    if code not in (128 + number, 0) and not (early and code == -number):
        wrong.append(f"exit code {code}")
    if code == 128 + number and said.count("interrupted") != 1:
        wrong.append(f"sentences: {said[-300:]!r}")
    if "Traceback" in said:
        wrong.append(f"a traceback: {said[-500:]!r}")
    return wrong


def _left_in(folder: Path, name: str, *, haste: bool) -> list[str]:
    """What is half-written; an end in `haste` leaves a marked folder to the next export."""
    out, wrong = folder / "out", []
    if name == "decompose" and out.exists():
        wrong += _factors(out)
    if name in ("export", "heal"):
        if out.exists() and not (out / "interventions.json").exists():
            wrong.append(f"half an export: {sorted(p.name for p in out.iterdir())}")
        if (partial := list(folder.glob(".out*"))) and not haste:
            wrong.append(f"left: {[p.name for p in partial]}")
        shutil.rmtree(out, ignore_errors=True)
    return wrong


def _factors(cache: Path) -> list[str]:
    """What is wrong with a cache that a builder was interrupted in."""
    checked = run("factors", "verify", cache)
    return [] if checked.returncode == 0 else [checked.stdout + checked.stderr]


TRIED = {f.__name__: f for f in (clock, gc, export, postgresql, memory, stops, commands, orphans)}


def main() -> int:
    """Try what is asked for; 0 if all holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=TRIED)
    # In the background of a script they are ignored, and would be in what is struck.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    for name in parser.parse_args().what:
        with tempfile.TemporaryDirectory(prefix="withstand-", ignore_cleanup_errors=True) as place:
            try:
                for line in TRIED[name](Path(place)):
                    print(f"{name}: {line}", flush=True)
            except Broken as error:
                print(f"{name}: DOES NOT HOLD: {error}", flush=True)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
