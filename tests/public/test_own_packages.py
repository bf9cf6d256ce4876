"""Files of a user named like our packages do no harm; a broken installation says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("laser_search", "cluster", "search", "tasks")


def python(*words: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with a module or package of each of our names."""
    folder = tmp_path / "user"
    (folder / "cluster").mkdir(parents=True)
    for file in ("search.py", "tasks.py", "cluster/__init__.py"):
        (folder / file).write_text("raise RuntimeError('the file of the user')\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Our packages as an installation has them, in a folder of their own."""
    folder = tmp_path / "site"
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "model")
        )
    return folder


def test_a_users_modules_are_not_imported(users_folder: Path, installed: Path) -> None:
    path = os.pathsep.join([".", str(users_folder), str(installed)])
    done = python("-m", "laser_search", "--help", cwd=users_folder, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "launch" in done.stdout
    code = "import laser_search, search, tasks.base; print(search.__file__)"
    done = python("-c", code, cwd=users_folder, PYTHONPATH=path)
    assert Path(done.stdout.strip()).parent == installed / "search", done.stderr


def test_an_overwritten_package_is_a_sentence(tmp_path: Path, installed: Path) -> None:
    (installed / "cluster" / "__init__.py").write_text('"""A cluster of something else."""\n')
    done = python("-m", "laser_search", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 2, "bad installations are bad input"
    assert done.stderr.count("\n") == 1, done.stderr
    assert "another installed package has overwritten it" in done.stderr
    assert str(installed / "cluster") in done.stderr


def test_a_foreign_package_imported_before_is_a_sentence(
    users_folder: Path, installed: Path
) -> None:
    (users_folder / "search.py").write_text("")
    code = "import search; from laser_search.__main__ import main; main()"
    path = os.pathsep.join([str(users_folder), str(installed)])
    done = python("-c", code, cwd=users_folder, PYTHONPATH=path)
    assert done.returncode == 2
    assert f"imported from {users_folder / 'search.py'}" in done.stderr
    assert "Traceback" not in done.stderr
