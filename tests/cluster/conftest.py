from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from cluster.cli import main
from search.config import StudyConfig, write_config
from search.demo.study import demo_config

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cluster.cli", *map(str, arguments)]


def in_this_process(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program without the seconds that its imports take."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", words):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def run() -> Run:
    """Run the program as a user does; returns the finished process.

    What starts Ray is a process of its own; what reads a study is not.
    """

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        if arguments[0] in ("status", "report", "export"):
            done = in_this_process(["laser-search", *map(str, arguments)])
        else:
            done = subprocess.run(
                program(*arguments), capture_output=True, text=True, timeout=500, check=False
            )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[bytes]]:
    """Start the program and return at once."""
    return lambda *arguments: subprocess.Popen(program(*arguments), stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Path]:
    """Write a study of the demo's model, with one worker unless told otherwise."""

    def write(folder: Path, workers: int = 1, storage: str | None = None, **search: object) -> Path:
        config: StudyConfig = demo_config(folder, trials=12)
        folder.mkdir(exist_ok=True)
        few = Path(config.task.data).read_text(encoding="utf-8").splitlines(keepends=True)[:480]
        (folder / "questions.jsonl").write_text("".join(few), encoding="utf-8")
        task = config.task.model_copy(update={"data": str(folder / "questions.jsonl")})
        config = config.model_copy(
            update={
                "search": type(config.search)(**{**config.search.model_dump(), **search}),
                "cluster": config.cluster.model_copy(update={"max_concurrent": workers}),
                "storage": storage,
                "task": task,
            }
        )
        write_config(config, folder / "study.yaml")
        return folder / "study.yaml"

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, run: Run, make_study) -> Path:
    """The folder of a study that ran to its end."""
    folder = tmp_path_factory.mktemp("launched")
    run("launch", make_study(folder), "--out", folder / "study")
    return folder / "study"
