"""What a killed program left behind: only that is found and removed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from search.leftovers import find_leftovers, marked_scratch, remove_leftovers
from search.study.lock import Holder
from tasks.errors import InputError

BEGIN = """
import os, sys
from search.leftovers import marked_scratch
with marked_scratch() as scratch:
    scratch.began(sys.argv[1])
    (scratch.folder / "big").write_bytes(b"x" * 2**20)
    print(scratch.folder, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path: Path) -> Path:
    """Temporary folders and Ray's sessions of these tests alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    (tmp_path / "ray" / "session_theirs").mkdir(parents=True)
    return tmp_path


def killed(session: str) -> Path:
    words = [sys.executable, "-c", BEGIN, session]
    return Path(subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip())


def test_a_killed_programs_folders_and_processes_go(places: Path) -> None:
    session = places / "ray" / "session_ours_1"
    session.mkdir()
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)", str(session / "logs")]
    with subprocess.Popen(sleeper) as process:
        folder = killed("session_ours_1")
        (found,) = find_leftovers()
        assert set(found.folders) == {folder, session}
        assert found.processes == (process.pid,)
        assert found.size_bytes >= 2**20
        assert str(folder) in found.text() and f"process {process.pid}" in found.text()
        remove_leftovers()
        process.wait(timeout=120)
    assert find_leftovers() == []
    assert not folder.exists() and not session.exists()
    assert (places / "ray" / "session_theirs").exists()


@pytest.mark.parametrize("session", ["", "..", "../x", "session_*", "session_theirs/.."])
def test_a_strange_mark_removes_nothing_else(places: Path, session: str) -> None:
    killed(session)
    (places / "x").mkdir()
    remove_leftovers()
    assert (places / "ray" / "session_theirs").exists() and (places / "x").exists()


def test_what_lives_or_is_elsewhere_or_unmarked_stays(places: Path) -> None:
    (places / "laser-search-unmarked").mkdir()
    other = places / "laser-search-other"
    other.mkdir()
    owner = {**asdict(Holder.here()), "machine": "another", "pid": 1}
    del owner["age_s"]
    (other / "owner.json").write_text(json.dumps({"owner": owner, "session": ""}))
    with marked_scratch() as scratch:
        remove_leftovers()
        assert scratch.folder.exists()
    assert not scratch.folder.exists()
    assert other.exists() and (places / "laser-search-unmarked").exists()


def test_rays_logs_stay_after_a_fault_until_the_next_start(places: Path, monkeypatch) -> None:
    session = places / "ray" / "session_ours_2"
    session.mkdir()
    with pytest.raises(RuntimeError), marked_scratch() as scratch:
        scratch.began("session_ours_2")
        raise RuntimeError
    assert session.exists() and not scratch.folder.exists()
    monkeypatch.setattr(Holder, "is_gone", property(lambda self: True))
    remove_leftovers()
    assert not session.exists() and find_leftovers() == []


EXPORT = """
import os, sys
from pathlib import Path
from search.export.folder import new_folder
with new_folder(Path(sys.argv[1]), 0) as partial:
    (partial / "big").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_export_leaves_nothing_that_the_next_does_not_remove(places: Path) -> None:
    from search.export.folder import new_folder

    out = places / "model"
    subprocess.run([sys.executable, "-c", EXPORT, out], check=False)
    theirs = places / ".model.12345678"
    theirs.mkdir()
    assert len(list(places.glob(".model.*"))) == 2 and not out.exists()
    with new_folder(out, 0) as partial:
        (partial / "whole").write_text("whole")
    assert [path.name for path in out.iterdir()] == ["whole"]
    assert list(places.glob(".model.*")) == [theirs]


def test_without_a_temporary_folder_status_works_and_a_start_says_why(monkeypatch) -> None:
    """Python finds none on a full or read-only disk; it was a traceback when we were imported."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert find_leftovers() == []
    said = r"no temporary folder is writable .*set TMPDIR"
    with pytest.raises(InputError, match=said), marked_scratch():
        pass
