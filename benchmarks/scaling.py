"""What the driver costs, how many workers it feeds, and what becomes of a study when nodes go.

    python benchmarks/scaling.py overhead --strategy tpe
    python benchmarks/scaling.py rate --workers 64 --seconds 1 --trials 1280
    python benchmarks/scaling.py nodes
    python benchmarks/scaling.py memory --trials 10000

Real studies over the demo's space on a real Ray; only the workers are replaced, by actors that
sleep and answer with a score drawn from the composition, so that 64 of them fit on two cores.
Efficiency is what a fleet without any overhead would need, over what the study needed, from when
all workers are up. CPU seconds of the driver's own process are given beside: they depend less on
what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.session import LOCAL_SETTINGS, SETTINGS

os.environ.update(SETTINGS | LOCAL_SETTINGS)
if "nodes" in sys.argv:  # nodes that ray.cluster_utils starts know no token
    os.environ["RAY_AUTH_MODE"] = "disabled"
import psutil
import ray
from ray import tune

from cluster.execution import execute
from cluster.shipping import local_environment
from search.demo.study import demo_config
from search.plan import Plan, make_plan
from search.study.driven_study import DrivenStudy, Subject
from search.study.identity import Digests, Identity
from search.study.outcomes import Evaluation, outcome_bytes
from tasks.base import Outcome

EXAMPLES = 100


def answer(job: dict[str, Any], study_id: str, composition: str) -> bytes:
    """Outcomes of a job as a worker sends them; the score is drawn from the effect."""
    score = random.Random(job["effect"]).random()
    outcomes = tuple(Outcome(f"q{n}", f"g{n}", score, -1.0, "x") for n in range(EXAMPLES))
    return outcome_bytes(
        Evaluation(
            *(job["name"], study_id, composition, job["effect"], job["part"]),
            score=score,
            log_loss=1.0,
            seconds={"total": 0.0},
            outcomes=outcomes,
        )
    )


class Sleeper(tune.Trainable):
    """Takes jobs as `StudyWorker` does, and sleeps."""

    def setup(self, config: dict[str, Any], study_id: str, log: str, seconds: float) -> None:
        """Take the first job."""
        self._study_id, self._seconds = study_id, seconds
        node = ray.get_runtime_context().get_node_id()
        self._path = Path(log) / f"{node}-{os.getpid()}.jsonl"
        self._job = json.loads(config["job"])

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Take the next job."""
        self._job = json.loads(config["job"])
        return True

    def _write(self, event: str) -> None:
        line = {"time": time.time(), "event": event, "effect": self._job["effect"]}
        line |= {"job": self._job["name"]}
        with self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def step(self) -> dict[str, Any]:
        """Sleep, and answer."""
        self._write("start")
        if self._job["part"] == "validation":
            time.sleep(self._seconds)
        data = answer(self._job, self._study_id, json.dumps(self._job["composition"]))
        self._write("done")
        return {"score": 0.0, "done": True, "finished": True, "outcomes": data}


def open_study(folder: Path, trials: int, strategy: str, workers: int) -> tuple[DrivenStudy, Plan]:
    """A study of the demo's model over a continuous space, so that it is never exhausted."""
    config = demo_config(folder, trials)
    data = config.model_dump(mode="json")
    data["space"]["rho"] = {"low": 0.005, "high": 0.95}
    data["search"] |= {"strategy": strategy, "trials": trials}
    data["cluster"]["max_concurrent"] = workers or "auto"
    config = type(config).model_validate(data)
    plan = make_plan(config)
    folder.mkdir(parents=True, exist_ok=True)
    identity = Identity.new(Digests("", "", "", ""))
    if (folder / "study.json").exists():
        identity = Identity.read(folder)
    else:
        identity.write(folder)
    subject = Subject(folder, identity, config, plan.space, plan.max_ranks, plan.objective)
    return DrivenStudy.open(subject), plan


def feed(study: DrivenStudy, trials: int, in_flight: int) -> Iterator[tuple[float, float]]:
    """Drive a study in this process; yields CPU and wall seconds of each ask and tell."""
    jobs: list[Any] = []
    for _ in range(trials):
        cpu, wall = time.process_time(), time.perf_counter()
        while len(jobs) < in_flight:
            with study.together():
                jobs.append(study.next_job())
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        job = jobs.pop(0)
        data = answer(job.to_dict(), study.identity.study_id, str(job.composition))
        start_cpu, start = time.process_time(), time.perf_counter()
        with study.together():
            study.take(job, data)
        yield cpu + time.process_time() - start_cpu, wall + time.perf_counter() - start


def overhead(strategy: str, in_flight: int) -> None:
    """Driver seconds per trial with 1,000 and 5,000 trials finished, without Ray."""
    with tempfile.TemporaryDirectory() as name:
        for finished in (1000, 5000):
            folder = Path(name) / "study"
            study, _ = open_study(folder, 100_000, "random", in_flight)
            for _ in feed(study, finished - study.spent, in_flight):
                pass
            study, _ = open_study(folder, 100_000, strategy, in_flight)
            costs = list(feed(study, in_flight + 100, in_flight))[in_flight:]
            cpu, wall = (1000 * statistics.fmean(column) for column in zip(*costs, strict=True))
            print(
                f"{strategy}, {finished} finished, {in_flight} in flight: "
                f"{cpu:.1f} ms CPU, {wall:.1f} ms wall per trial",
                flush=True,
            )


@contextmanager
def local_ray(cpus: int, scratch: Path) -> Iterator[None]:
    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env=local_environment(scratch),
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
    done: dict[str, int] = {}
    for line in lines(log):
        if (
            line["event"] == "done"
            and line["job"].startswith("trial-")
            and "test" not in line["job"]
        ):
            done[line["effect"]] = done.get(line["effect"], 0) + 1
    finished = {t.effect for t in ended if t.state.is_finished()}
    if study.stopped or len(finished) != trials or len(ended) != trials:
        raise SystemExit(f"FAILED: {len(finished)} of {trials} finished, {study.stopped}")
    lost = len(
        set(done) - finished - {line["effect"] for line in lines(log) if "-test" in line["job"]}
    )
    return lost, 0 if not done else sum(n - 1 for n in done.values())


def run(study: DrivenStudy, log: Path, seconds: float) -> None:
    """Execute a study on sleepers."""
    log.mkdir(exist_ok=True)
    worker = tune.with_parameters(
        Sleeper, study_id=study.identity.study_id, log=str(log), seconds=seconds
    )
    execute(study, worker, {"cpu": 1})


def rate(workers: int, seconds: float, trials: int, strategy: str) -> None:
    """Trials per second that one driver sustains, from when all workers are up.

    The last trials leave workers idle by necessity, so they are not counted.
    """
    with tempfile.TemporaryDirectory() as name, local_ray(workers, Path(name)):
        study, _ = open_study(Path(name) / "study", trials, strategy, workers)
        marks: list[tuple[float, float]] = []
        study.on_change = lambda: marks.append((time.time(), time.process_time()))
        log = Path(name) / "log"
        run(study, log, seconds)
        lost, repeated = check(study, log, trials)
        began = sorted(first_line(path)["time"] for path in log.iterdir())
    steady = [mark for mark in marks if mark[0] > began[-1] + seconds]
    steady = steady[: max(2, len(steady) - workers)]
    (start, cpu), (end, cpu_end) = steady[0], steady[-1]
    measured = (len(steady) - 1) / (end - start)
    text = f"{measured:.1f} trials/s over {len(steady)} trials"
    if seconds:
        text += f", efficiency {measured * seconds / workers:.1%}"
    each = 1000 * (cpu_end - cpu) / (len(steady) - 1)
    print(
        f"{strategy}, {len(began)} workers up after {began[-1] - began[0]:.0f} s, {seconds:g}-s "
        f"trials: {text}, driver {each:.1f} ms CPU per trial, lost {lost}, repeated {repeated}"
    )


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
        environment = local_environment(Path(name))
        ray.init(
            cluster.address, log_to_driver=False, logging_level="ERROR", runtime_env=environment
        )
        known = {node["NodeID"] for node in ray.nodes()}
        study, _ = open_study(Path(name) / "study", trials, "random", 0)
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
        run(study, log, seconds)
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


def memory(trials: int, workers: int) -> None:
    """Resident memory of driver and workers over many trials."""
    with tempfile.TemporaryDirectory() as name, local_ray(workers, Path(name)):
        study, _ = open_study(Path(name) / "study", trials, "random", workers)
        own, seen = psutil.Process(), []
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(0.5):
                others = [p for p in own.children(recursive=True) if "Sleeper" in p.name()]
                fleet = [p.memory_info().rss / 2**20 for p in others] or [0.0]
                seen.append((study.spent, own.memory_info().rss / 2**20, max(fleet)))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        run(study, Path(name) / "log", 0.0)
        ended.set()
        thread.join()
        for part in range(1, 11):
            at = min(seen, key=lambda entry: abs(entry[0] - trials * part // 10))
            print(f"{at[0]:>6} trials: driver {at[1]:.0f} MiB, largest worker {at[2]:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["overhead", "rate", "nodes", "memory"])
    parser.add_argument("--strategy", default="tpe")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=1280)
    asked = parser.parse_args()
    if asked.what == "overhead":
        overhead(asked.strategy, asked.workers)
    elif asked.what == "rate":
        rate(asked.workers, asked.seconds, asked.trials, asked.strategy)
    elif asked.what == "nodes":
        nodes(min(asked.trials, 480), asked.seconds)
    else:
        memory(asked.trials, min(asked.workers, 4))


if __name__ == "__main__":
    sys.exit(main())
