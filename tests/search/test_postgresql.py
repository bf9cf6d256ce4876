"""The same study in a database: a real PostgreSQL server on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.study.enduring import hide_password

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.name == "posix" else []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of its own, as the user postgres where the tests run as root."""
    pytest.importorskip("psycopg", reason="the extra laser-search[postgresql] is not installed")
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not under pytest's own folder, which only the user who runs the tests may enter.
    binaries, folder = BINARIES[-1], Path(tempfile.mkdtemp(prefix="postgresql"))
    is_root = getpass.getuser() == "root"
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    prefix = as_user if is_root else []
    if is_root:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, run = folder / "data", dict(check=True, stdout=subprocess.DEVNULL, cwd="/")
    subprocess.run([*prefix, binaries / "initdb", "-D", data, "-U", "laser", "-A", "trust"], **run)
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder}"
    control = [*prefix, binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **run)
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "laser"]
    subprocess.run([binaries / "createdb", *at, "studies"], **run)
    yield f"postgresql://laser@127.0.0.1:{port}/studies"
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


def test_a_study_in_a_database(server: str, tmp_path: Path, make_config, open_study, drive) -> None:
    config = make_config(storage=server, trials=12)
    in_file = open_study(tmp_path / "file", make_config(trials=12))
    drive(in_file)
    study = open_study(tmp_path / "database", config)
    drive(study, limit=5)
    in_flight = study.next_job()
    again = open_study(tmp_path / "database", config)
    assert again.next_job() == in_flight
    again = open_study(tmp_path / "database", config)
    drive(again)
    assert again.spent == 12
    states = [t.state for t in again.trials()]
    assert states == [TrialState.COMPLETE] * 12
    # The storage is no part of the search: the same seed finds the same in both.
    assert [t.params for t in again.trials()] == [t.params for t in in_file.trials()]


def test_two_studies_share_a_database(
    server: str, tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(storage=server, trials=4)
    identity = open_study(tmp_path / "x", make_config(trials=1)).identity
    for name in ("first", "second"):
        drive(open_study(tmp_path / name, config, replace(identity, study_id=name)))
    for name in ("first", "second"):
        study = open_study(tmp_path / name, config, replace(identity, study_id=name))
        assert study.spent == 4


def test_passwords_are_not_shown() -> None:
    url = "postgresql://user:pa55@host:5432/db"
    assert hide_password(f"could not connect to {url}") == (
        "could not connect to postgresql://user:***@host:5432/db"
    )
