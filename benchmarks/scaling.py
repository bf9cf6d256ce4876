"""What the driver costs, how many workers it feeds, and what becomes of a study when nodes go.

    python benchmarks/scaling.py overhead --strategy auto --matrices 224 --limit 0.01 --trials 5000
    python benchmarks/scaling.py rate --workers 64 --seconds 1 --trials 5000 --strategy auto
    python benchmarks/scaling.py nodes
    python benchmarks/scaling.py memory --trials 10000

Real studies in real folders on a real Ray; only the workers are replaced, by actors that sleep and
answer what a made-up landscape says of the composition (sleepers.py), so that 64 of them fit on two
cores. Efficiency is the time that workers slept, over the time that they were there, from when all
are up until there are too few trials left for them. CPU seconds of the driver's own process are
given beside: they depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.session import LOCAL_SETTINGS, SETTINGS

os.environ.update(SETTINGS | LOCAL_SETTINGS)
if "nodes" in sys.argv:  # nodes that ray.cluster_utils starts know no token
    os.environ["RAY_AUTH_MODE"] = "disabled"
import psutil
import ray
from optuna.trial import TrialState
from ray import tune
from sleepers import Landscape, Sleeper, made_up

from cluster.execution import execute
from cluster.shipping import local_environment
from search.cuts.refs import MatrixRef
from search.demo.study import demo_config
from search.plan import make_plan
from search.study.driven_study import DrivenStudy
from search.study.identity import Digests, Identity
from search.study.jobs import Job, trial_name
from search.study.subject import Subject

EACH = 16
"""Trials between two looks at what the driver has used."""


@dataclass(frozen=True)
class Case:
    """A study: `limit` is that of `guard.worse_by`, 0 for none.

    `matrices`: of a made-up space at nine rho; 0 for the demo's own matrices at any rho, a space
    that is never exhausted. `races`: whether trials report chunks and are stopped early. `apart`:
    workers that do not share the study's folder send their outcomes, and the driver writes them.
    """

    strategy: str = "random"
    trials: int = 1280
    limit: float = 0.0
    matrices: int = 0
    races: bool = False
    apart: bool = False

    @property
    def landscape(self) -> Landscape:
        """What sleepers answer; a race has eight chunks of 64 questions."""
        limited = bool(self.limit)
        return Landscape(512, 8, limited) if self.races else Landscape(limited=limited)

    def __str__(self) -> str:
        """For the lines that are printed."""
        parts = [self.strategy, f"{self.matrices} matrices" if self.matrices else "demo's matrices"]
        parts += [f"limit {self.limit:g}"] * bool(self.limit) + ["race"] * self.races
        parts += ["no shared folder"] * self.apart
        return ", ".join(parts)


def open_study(folder: Path, case: Case, workers: int) -> DrivenStudy:
    """A study of the demo's model, as a driver opens it."""
    config = demo_config(folder, case.trials)
    data = config.model_dump(mode="json")
    if not case.matrices:
        data["space"]["rho"] = {"low": 0.005, "high": 0.95}
    data["search"] |= {"strategy": case.strategy, "trials": case.trials}
    data["search"] |= {"pruner": "race", "chunks": 8} if case.races else {"pruner": "none"}
    data["cluster"]["max_concurrent"] = workers or "auto"
    if case.limit:
        data["guard"] = {"worse_by": case.limit}
    plan = make_plan(type(config).model_validate(data))
    plan.witness.seal()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "study.json").exists():
        identity = Identity.read(folder)
    else:
        identity = Identity.new(Digests("", "", "", ""))
        identity.write(folder)
    space, ranks = plan.space, plan.max_ranks
    shapes: dict[MatrixRef, tuple[int, ...]] = {m.ref: m.shape for m in plan.matrices}
    if case.matrices:
        refs = made_up(case.matrices)
        space = replace(space, matrices=refs, max_interventions=5)
        ranks = dict.fromkeys(refs, 1024)
        shapes = dict.fromkeys(refs, (1024, 4096))
    return DrivenStudy.open(
        Subject(folder, identity, plan.config, space, ranks, plan.objective, shapes=shapes),
        witness=plan.witness,
    )


def feed(study: DrivenStudy, case: Case, in_flight: int, until: int) -> Iterator[float]:
    """Drive a study in this process until it has that many trials; yields each one's CPU seconds.

    Those of choosing it and of recording it, without what its worker does.
    """
    jobs: list[Job] = []
    asked = 0.0
    while study.spent < until:
        mark = time.process_time()
        while len(jobs) < in_flight:
            with study.together():
                job = study.next_job()
            if job is None:
                break
            jobs.append(job)
        asked += time.process_time() - mark
        job = jobs.pop(0)
        answers = list(case.landscape.answers(job.to_dict(), study.identity.study_id))
        mark = time.process_time()
        tell(study, job, answers)
        asked += time.process_time() - mark
        if job.number is not None:
            yield asked
            asked = 0.0


def tell(study: DrivenStudy, job: Job, answers: Sequence[dict[str, Any]]) -> None:
    """What a worker reports of a job."""
    for answer in answers:
        with study.together():
            if answer["ended"]:
                study.take(job, answer["outcomes"])
            elif study.report(job, answer["step"], answer["score"], json.loads(answer["chunk"])):
                study.prune(job)
                return


def overhead(case: Case, in_flight: int) -> None:
    """Driver seconds per trial as trials add up, without Ray."""
    with tempfile.TemporaryDirectory() as name:
        study = open_study(Path(name) / "study", case, in_flight)
        costs: list[float] = []
        for cost in feed(study, case, in_flight, case.trials):
            costs.append(1000 * cost)
            if len(costs) in (200, 500) or len(costs) % 1000 == 0:
                last = costs[-100:]
                print(
                    f"{case}: {len(costs)} finished, {in_flight} in flight: "
                    f"{statistics.fmean(last):.1f} ms CPU a trial (median "
                    f"{statistics.median(last):.1f}, most {max(last):.1f}), so far "
                    f"{statistics.fmean(costs):.1f}",
                    flush=True,
                )


def environment(scratch: Path) -> dict[str, Any]:
    """Ray's runtime environment for workers, which find this folder's modules too."""
    found = local_environment(scratch)
    here = Path(__file__).resolve().parent.as_uri().replace("file", "local", 1)
    return found | {"py_modules": [*found["py_modules"], here]}


@contextmanager
def local_ray(cpus: int, scratch: Path) -> Iterator[None]:
    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env=environment(scratch),
    )
    try:
        yield
    finally:
        ray.shutdown()


def lines(log: Path) -> list[dict[str, Any]]:
    """Everything that the workers wrote, in order of time."""
    found = [json.loads(x) for path in log.glob("*.jsonl") for x in path.read_text().splitlines()]
    return sorted(found, key=lambda line: line["time"])


def check(study: DrivenStudy, log: Path, trials: int) -> tuple[int, int]:
    """(lost, repeated) trials; fails unless the study ended as asked."""
    ended = study.trials()
    finished = {trial_name(t.number) for t in ended if t.state.is_finished()}
    if study.stopped or len(finished) != trials or len(ended) != trials:
        raise SystemExit(f"FAILED: {len(finished)} of {trials} finished, {study.stopped}")
    done: dict[str, int] = {}
    for line in lines(log):
        if line["event"] == "done" and line["job"].startswith("trial-"):
            done[line["job"]] = done.get(line["job"], 0) + 1
    tested = {name for name in done if name.count("-") > 1}
    return len(set(done) - finished - tested), sum(done.values()) - len(done)


def run(study: DrivenStudy, case: Case, log: Path, seconds: float) -> None:
    """Execute a study on sleepers."""
    log.mkdir(exist_ok=True)
    worker = tune.with_parameters(
        Sleeper,
        study_id=study.identity.study_id,
        log=str(log),
        seconds=seconds,
        landscape=case.landscape,
        folder=None if case.apart else str(study.folder.resolve()),
    )
    execute(study, worker, {"cpu": 1})


def rate(case: Case, workers: int, seconds: float) -> None:
    """Trials per second that one driver sustains, from when all workers are up.

    The last trials leave workers idle by necessity, so they are not counted.
    """
    with tempfile.TemporaryDirectory() as name, local_ray(workers, Path(name)):
        study = open_study(Path(name) / "study", case, workers)
        marks: list[tuple[float, float, float]] = []
        own, changes = psutil.Process(), itertools.count(1)

        def mark() -> None:  # not at each trial: processor time of many threads takes half a ms
            if next(changes) % EACH == 0:
                marks.append((time.time(), time.process_time(), own.memory_info().rss / 2**20))

        study.on_change = mark
        log = Path(name) / "log"
        run(study, case, log, seconds)
        lost, repeated = check(study, log, case.trials)
        heard = lines(log)
        began = sorted(first_line(path)["time"] for path in log.iterdir())
        stopped = sum(t.state == TrialState.PRUNED for t in study.trials())
    steady = [mark for mark in marks if mark[0] > began[-1] + seconds]
    steady = steady[: max(2, len(steady) - 2 * workers // EACH)]
    (start, cpu, _), (end, cpu_end, _) = steady[0], steady[-1]
    count = EACH * (len(steady) - 1)
    slept = sum(line["slept"] for line in heard if start < line["time"] <= end)
    print(
        f"{case}: {len(began)} workers up after {began[-1] - began[0]:.0f} s, {seconds:g}-s "
        f"trials: {count / (end - start):.1f} trials/s over {count} trials ({stopped} stopped), "
        f"efficiency {slept / (end - start) / len(began):.1%}, driver "
        f"{1000 * (cpu_end - cpu) / count:.1f} ms CPU per trial, "
        f"{(cpu_end - cpu) / (end - start):.0%} of a core, lost {lost}, repeated {repeated}"
    )
    part = max(1, (len(steady) - 1) // 5)
    for n in range(part, len(steady), part):
        (a, first, _), (b, last, held) = steady[n - part], steady[n]
        rate, each = EACH * part / (b - a), 1000 * (last - first) / (EACH * part)
        print(f"  to trial {EACH * n}: {rate:.1f}/s, {each:.1f} ms, driver {held:.0f} MiB")


def first_line(path: Path) -> dict[str, Any]:
    """When a worker began."""
    found: dict[str, Any] = json.loads(path.read_text().partition("\n")[0])
    return found


def node_of(path: Path) -> str:
    """The node of a worker, by the name of its log."""
    return path.stem.partition("-")[0]


def nodes(trials: int, seconds: float) -> None:
    """Four nodes of two workers each; one is killed in mid-run, another joins."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        others = [cluster.add_node(num_cpus=2) for _ in range(3)]
        ray.init(
            cluster.address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=environment(Path(name)),
        )
        known = {node["NodeID"] for node in ray.nodes()}
        case = Case(trials=trials)
        study = open_study(Path(name) / "study", case, 0)
        log = Path(name) / "log"
        marks: dict[str, float] = {}

        def disturb() -> None:  # between two trials, for nodes start in the main thread alone
            started = log.is_dir() and len(set(map(node_of, log.iterdir()))) >= 4
            if "killed" not in marks and started and study.spent >= trials // 4:
                marks["killed"] = time.time()
                cluster.remove_node(others[0], allow_graceful=False)
            elif "killed" in marks and "joined" not in marks and study.spent >= trials // 2:
                cluster.add_node(num_cpus=2)
                marks["joined"] = time.time()

        study.on_change = disturb
        run(study, case, log, seconds)
        lost, repeated = check(study, log, trials)
        back = [again - marks["killed"] for again in started_again(lines(log), marks["killed"])]
        new = [
            first_line(path)["time"] - marks["joined"]
            for path in log.iterdir()
            if node_of(path) not in known
        ]
        print(
            f"4 nodes, {trials} trials of {seconds:g} s: {len(back)} in flight on the killed node "
            f"ran again within {max(back, default=0):.1f} s; the new node's {len(new)} workers "
            f"began after {', '.join(f'{x:.1f}' for x in sorted(new))} s; "
            f"lost {lost}, repeated {repeated}"
        )
        ray.shutdown()
        cluster.shutdown()


def started_again(events: list[dict[str, Any]], killed: float) -> list[float]:
    """When each trial that was in flight at `killed`, and did not end, began again."""
    ended: set[str] = set()
    again: dict[str, float] = {}
    begun: set[str] = set()
    for event in events:
        job = event["job"]
        if event["event"] == "done":
            ended.add(job)
        elif event["time"] < killed:
            begun.add(job)
        elif job in begun and job not in ended:
            again.setdefault(job, event["time"])
    return list(again.values())


def memory(case: Case, workers: int) -> None:
    """Resident memory of driver and workers over many trials."""
    with tempfile.TemporaryDirectory() as name, local_ray(workers, Path(name)):
        study = open_study(Path(name) / "study", case, workers)
        own, seen = psutil.Process(), []
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(0.5):
                others = [p for p in own.children(recursive=True) if "Sleeper" in p.name()]
                fleet = [p.memory_info().rss / 2**20 for p in others] or [0.0]
                seen.append((study.spent, own.memory_info().rss / 2**20, max(fleet)))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        run(study, case, Path(name) / "log", 0.0)
        ended.set()
        thread.join()
        for part in range(1, 11):
            at = min(seen, key=lambda entry: abs(entry[0] - case.trials * part // 10))
            print(f"{at[0]:>6} trials: driver {at[1]:.0f} MiB, largest worker {at[2]:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["overhead", "rate", "nodes", "memory"])
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=1280)
    parser.add_argument("--limit", type=float, default=0.0, help="that of guard.worse_by")
    parser.add_argument("--matrices", type=int, default=0, help="of a made-up space at nine rho")
    parser.add_argument("--race", action="store_true", help="report chunks, and stop early")
    parser.add_argument("--apart", action="store_true", help="workers do not share the folder")
    asked = parser.parse_args()
    case = Case(asked.strategy, asked.trials, asked.limit, asked.matrices, asked.race, asked.apart)
    if asked.what == "overhead":
        overhead(case, asked.workers)
    elif asked.what == "rate":
        rate(case, asked.workers, asked.seconds)
    elif asked.what == "nodes":
        nodes(min(asked.trials, 480), asked.seconds)
    else:
        memory(case, min(asked.workers, 4))


if __name__ == "__main__":
    sys.exit(main())
