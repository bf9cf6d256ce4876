"""Three ways to run a study: on the session's one Ray, with no Ray at all, as a process.

`run` is the program in this process on the one Ray that all tests share. `one_process` takes Ray
away: the driver stays as it is, the worker's own evaluator works here. `start` is for what needs a
process: its death, its exit code, a signal.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml

from cluster import driver
from cluster.calibrate import calibrate_here
from cluster.cli import main
from cluster.precompute import factor_matrices
from cluster.resources import Resources, divide
from cluster.session import LOCAL_SETTINGS, SETTINGS
from cluster.shipping import local_environment
from search.config import StudyConfig, parse_config, write_config
from search.demo.study import HERE, demo_config
from search.loop import run_study
from search.sections import ClusterConfig

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LONG_S = 500
"""Less than pytest's own limit; no test expects anything to take so long."""

CPUS = 2
"""Of the shared Ray, whatever the machine has: a study is divided alike everywhere."""


def one_thread(
    config: ClusterConfig, nodes: Sequence[Mapping[str, float]], model_bytes: int
) -> Resources:
    """As the program divides, but for torch's threads: tests run beside one another."""
    return replace(divide(config, nodes, model_bytes), threads=1)


EQUAL = {"RAY_worker_niceness": "0"}
"""Ray's workers give way to every other process, and beside two busy ones they hardly run."""

WANTED = SETTINGS | LOCAL_SETTINGS | EQUAL
os.environ.update({k: v for k, v in WANTED.items() if k not in os.environ})
"""Here, for some modules of tests import Ray, which reads its settings then."""

TOO_BUSY = "timed out during startup"
"""Ray's own limit of 30 s for a process of its own, which nothing sets: only a busy machine."""


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cluster.cli", *map(str, arguments)]


def in_this_process(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program without the seconds that its imports take; it must end with `code`."""
    words = ["laser-search", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", words):
        try:
            main()
            found = 0
        except SystemExit as end:
            found = int(end.code or 0)
    said = out.getvalue() + err.getvalue()
    assert found == code, f"{' '.join(words)} ended with {found}, not with {code}: {said}"
    return subprocess.CompletedProcess(words, found, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The one Ray of this session, on loopback; it starts with the first test that asks for it.

    This process stays connected, so that idle workers, which have imported torch, serve the next
    study too.
    """
    import ray

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")  # or the drivers of `start` need a token
        ray.init(
            "local",
            num_cpus=CPUS,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            runtime_env=local_environment(tmp_path_factory.mktemp("ray")),
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="session")
def run(ray_address: str) -> Run:
    """Run the program here; what needs Ray finds the session's, unless an address is given."""

    def call(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        if "--address" in words and words[0] != "decompose":
            return in_this_process(*words, code=code)
        with (
            patch("cluster.driver.ray_session", lambda *_: nullcontext()),
            patch("cluster.session.ray_session", lambda *_: nullcontext()),
            patch("cluster.driver.divide", one_thread),
        ):
            return in_this_process(*words, code=code)

    return call


@pytest.fixture(scope="session")
def one_process() -> Run:
    """Run the program here with no Ray: a study is evaluated by a worker's own evaluator."""

    def ensured(source, matrices, root, shares, storing, on_built, check, here):
        batch = factor_matrices(source, matrices, str(root), shares, storing, wait=True)
        for built in batch.ready:
            on_built(built)
        return {built.address: built.key for built in batch.ready}

    def measured(calibration, root, shares, check):
        return calibrate_here(calibration, root, shares, None)

    def searched(plan, study, shares, is_cut):
        evaluator, _ = driver._blueprint(plan, study, shares).build()
        fresh = dict(plan.source.load().named_parameters())  # before a test changes the file
        run_study(study, evaluator)
        for name, parameter in evaluator.editor.model.named_parameters():
            assert torch.equal(parameter, fresh[name]), f"{name} is not the checkpoint's any more"

    def call(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        with (
            patch("cluster.driver.ray_session", lambda *_: nullcontext()),
            patch("cluster.driver.living_nodes", lambda: [{"CPU": CPUS}]),
            patch("cluster.driver.divide", one_thread),
            patch("cluster.precompute.precompute", ensured),
            patch("cluster.calibrate.calibrate", measured),
            patch("cluster.driver._search", searched),
        ):
            return in_this_process(*words, code=code)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the program as a process, with a Ray of its own unless told; it ends with the test.

    `until`: wait until this holds, for `LONG_S` at most; where the machine was too busy for Ray,
    the same command is given again, as the program says.
    """
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path.with_name(f"{tmp_path.name}-stderr")

    def begin(*words: object) -> subprocess.Popen[bytes]:
        env = dict(os.environ)
        if "--address" not in words:
            env.pop("RAY_AUTH_MODE", None)  # the shared Ray's, not that of one of its own
        with log.open("wb") as said:
            process = subprocess.Popen(
                program(*words), stdout=subprocess.DEVNULL, stderr=said, env=env
            )
        started.append(process)
        return process

    def call(*words: object, until: Callable[[], object] | None = None) -> subprocess.Popen[bytes]:
        driver = begin(*words)
        deadline = time.monotonic() + LONG_S
        while until is not None and not until():
            assert time.monotonic() < deadline, f"it was to come this far within {LONG_S} s"
            if driver.poll() == 2 and TOO_BUSY in log.read_text():
                driver = begin(*words)
            assert driver.poll() is None, f"the driver was to go on: {log.read_text()}"
            time.sleep(0.1)
        return driver

    yield call
    for process in started:
        process.kill()
        process.wait(timeout=60)
    sys.stderr.write(log.read_text() if started else "")


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Path]:
    """Write a study of the demo's model, with one worker unless told otherwise."""

    def write(folder: Path, workers: int = 1, storage: str | None = None, **search: object) -> Path:
        config: StudyConfig = demo_config(folder, trials=12)
        folder.mkdir(exist_ok=True)
        few = Path(config.task.data).read_text(encoding="utf-8").splitlines(keepends=True)[:480]
        (folder / "questions.jsonl").write_text("".join(few), encoding="utf-8")
        data = config.model_dump(mode="json", exclude_unset=True)
        data["task"]["data"] = str(folder / "questions.jsonl")
        data["search"] |= {"pruner": "none", **search}  # trials that are whole, unless it is asked
        data |= {"cluster": {"max_concurrent": workers}, "storage": storage}
        write_config(parse_config(data, "test"), folder / "study.yaml")
        return folder / "study.yaml"

    return write


@pytest.fixture(scope="session")
def make_several() -> Callable[..., Path]:
    """Write a study of two tasks of questions and of a text, whose perplexity has a floor."""

    def write(folder: Path, **search: object) -> Path:
        lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines[:300]]
        texts = [{"text": f"{row['prompt']} {row['answer']}."} for row in rows[240:]]
        for name, chosen in (("a", rows[:120]), ("b", rows[120:240]), ("texts", texts)):
            text = "".join(json.dumps(row) + "\n" for row in chosen)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        floor = {"worse_by": 0.5, "limit": 1e6}
        texts_task = {"name": "perplexity", "data": "./texts.jsonl", "weight": 0, "floor": floor}
        study = {
            "model": {"path": str(HERE / "model")},
            "tasks": [
                {"name": "jsonl", "label": "first", "data": "./a.jsonl", "weight": 2},
                {"name": "jsonl", "label": "second", "data": "./b.jsonl"},
                texts_task,
            ],
            "objective": "relative",
            "split": {"validation": 0.5},
            "search": search,
            "cluster": {"max_concurrent": 1},
        }
        (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return folder / "study.yaml"

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, run: Run, make_study) -> Path:
    """The folder of a study that ran to its end on Ray."""
    folder = tmp_path_factory.mktemp("launched")
    run("launch", make_study(folder), "--out", folder / "study")
    return folder / "study"
