"""The same study on a Ray that runs already, by every kind of address, and on a Slurm of shims."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.launch.render import write
from cluster.launch.request import Request
from search.study.study_record import StudyRecord

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(*words: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # The folder of the user is no place to import from: as for the installed program.
    command = [sys.executable, "-P", "-m", "cluster.cli", *map(str, words)]
    env = {**env, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with packages of our names, which must never be imported."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("cluster", "search", "tasks"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ImportError('the user\\'s {name}')\n")
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], int]]:
    """A Ray head with a token on loopback: the environment to reach it, and its client port."""
    with running_head(tmp_path_factory.mktemp("r")) as found:
        yield found


@contextmanager
def running_head(scratch: Path) -> Iterator[tuple[dict[str, str], int]]:
    port, client = free_port(), free_port()
    env = {**os.environ, **LOOPBACK, "RAY_AUTH_MODE": "token"}
    env |= {"RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    env["PATH"] = f"{BIN}:{env['PATH']}"
    words = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--block"]
    words += [f"--ray-client-server-port={client}", "--include-dashboard=false"]
    words += ["--disable-usage-stats", "--object-store-memory=200000000"]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "ray", "start", *words], env=env, stdout=log, stderr=log, cwd=scratch
        )
    try:
        deadline = time.monotonic() + 300
        while subprocess.run(
            [BIN / "ray", "health-check", "--address", f"127.0.0.1:{port}"],
            env=env,
            capture_output=True,
            check=False,
        ).returncode:
            assert process.poll() is None, (scratch / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(1)  # each question is a program of its own
        yield env, client
    finally:
        begun = [process, *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        with suppress(subprocess.TimeoutExpired):  # it may hang when its raylet was killed
            process.wait(timeout=20)
        for one in begun:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(timeout=60)


def table(study: Path) -> list[tuple[object, ...]]:
    return [(t.number, t.score, t.effect) for t in StudyRecord.read(study).trials]


@pytest.mark.long
def test_one_study_by_every_kind_of_address(
    head, users_folder: Path, make_study, tmp_path: Path
) -> None:
    env, client = head
    path = make_study(tmp_path, trials=4)
    found = {}
    for name, address in (("auto", "auto"), ("client", f"ray://127.0.0.1:{client}")):
        study = tmp_path / name
        done = program(
            *("launch", path, "--out", study, "--address", address), cwd=users_folder, env=env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = table(study)
    # The frozen configuration names no address, so that it may go on elsewhere.
    assert StudyRecord.read(tmp_path / "auto").config.cluster.address is None
    study = tmp_path / "here"
    done = program("launch", path, "--out", study, cwd=users_folder, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(found["auto"]) == 4
    assert found["auto"] == found["client"] == table(study)
    longer = make_study(tmp_path / "longer", trials=500)
    check_a_raylet_that_dies(longer, tmp_path / "struck", env)  # the last use of this cluster


def check_a_raylet_that_dies(path: Path, study: Path, env: dict[str, str]) -> None:
    """The raylet of a cluster that dies beside its driver is a sentence."""
    words = ("launch", path, "--out", study, "--address", "auto")
    driver = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", *map(str, words)],
        env={**env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 400
    while not (study / "outcomes").exists() or len(table(study)) < 2:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "no trial ended"
        time.sleep(0.5)
    (raylet,) = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "raylet"
        and f"--gcs-address={env['RAY_ADDRESS']}" in " ".join(process.info["cmdline"])
    ]
    raylet.kill()
    began = time.monotonic()
    _, said = driver.communicate(timeout=60)
    took = time.monotonic() - began
    assert driver.returncode == 1, said
    assert "stopped: a part of Ray on this machine ended (raylet)" in said
    assert f"continue with: laser-search resume {study}" in said
    assert took < 30, "noticed too late"


def test_nobody_at_the_address(run, make_study, tmp_path: Path) -> None:
    path = make_study(tmp_path, trials=2)
    words = ("launch", path, "--out", tmp_path / "study", "--address", "ray://127.0.0.1:1")
    done = run(*words, code=2)
    *plan, last = done.stderr.splitlines()
    assert last.startswith("laser-search: ") and "'ray://127.0.0.1:1' does not answer" in last
    assert not any("laser-search" in line or "Traceback" in line for line in plan)


@pytest.mark.long
def test_nodes_that_leave_and_join() -> None:
    script = ROOT / "benchmarks" / "scaling.py"
    if not script.exists():
        pytest.skip("benchmarks are not shipped with the wheel")
    done = subprocess.run(
        [sys.executable, script, "nodes", "--trials", "60", "--seconds", "0.5"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, repeated 0" in done.stdout
    assert "the new node's" in done.stdout


SHIMS = {
    # Every "node" is a process of this machine.
    "srun": """
node=0; pids=
while [ "$node" -lt "$SLURM_JOB_NUM_NODES" ]; do
  while [ "${1#-}" != "$1" ]; do shift; done
  SLURM_NODEID=$node "$@" & pids="$pids $!"
  node=$((node + 1))
done
trap 'kill $pids 2>/dev/null' TERM
for pid in $pids; do wait "$pid"; done
for pid in $pids; do wait "$pid"; done
""",
    "squeue": "echo RUNNING",
    "scontrol": 'echo "$@" >> "$SHIM_LOG"',
}


@pytest.mark.long
def test_the_slurm_script_runs_and_asks_to_be_requeued(make_study, tmp_path: Path) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, text in SHIMS.items():
        (shims / name).write_text(f"#!/bin/bash\n{text.strip()}\n")
        (shims / name).chmod(0o755)
    # The program as it is here, which may not be installed.
    (shims / "laser-search").write_text(
        f'#!/bin/bash\nPYTHONPATH={ROOT} exec {sys.executable} -P -m cluster.cli "$@"\n'
    )
    (shims / "laser-search").chmod(0o755)
    path = make_study(tmp_path, workers=2, trials=400)
    request = Request(path, str(tmp_path / "study"), nodes=2)
    script = tmp_path / "job.sh"
    write("slurm", replace(request, setup=(f"export PATH={shims}:$PATH",)), script)
    text = script.read_text().replace(f"export PATH={BIN}:", f"export PATH={shims}:{BIN}:")
    script.write_text(text)
    assert script.stat().st_mode & stat.S_IXUSR
    job = str(10_000 + os.getpid() % 10_000)
    # Not on loopback alone: Ray would refuse a second node there. The script's token guards it.
    env = {**os.environ, "SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": "2"}
    env.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
    env |= {"SLURM_CPUS_ON_NODE": "1", "SHIM_LOG": str(tmp_path / "asked"), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([script], env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        # A worker needs a CPU, and a node has one.
        study = tmp_path / "study"
        wanted = {"logs/worker-*.jsonl": 2, "outcomes/trial-*.parquet": 1}
        while any(len(list(study.glob(kind))) < count for kind, count in wanted.items()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        process.terminate()  # as Slurm does to the batch shell when time is up
        code = process.wait(timeout=200)
    finally:
        process.kill()
    said = (tmp_path / "log").read_text()
    assert code == 75, said
    assert (tmp_path / "asked").read_text().split() == ["requeue", job], said
    summary = StudyRecord.read(tmp_path / "study").summary
    assert 0 < summary.finished < 400
