"""The same study in a database: a real PostgreSQL server on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.study.lock import Lease, hold
from search.study.lock_table import TableLedger
from search.study.storages import StorageLost
from tasks.errors import InputError
from tasks.secrets import hide_secrets

pytestmark = pytest.mark.slow
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.name == "posix" else []


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that may be killed and started."""

    url: str
    folder: Path
    control: tuple[str | Path, ...]
    options: str

    def start(self) -> None:
        words = [*self.control, "-l", self.folder / "log", "-o", self.options, "start"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def kill(self) -> None:
        """SIGKILL of the postmaster; its backends end by themselves when they notice."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        # The next start waits for the last backend, and refuses while one holds the memory.
        stop = [*self.control, "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd="/")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
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
    control = (*prefix, binaries / "pg_ctl", "-D", data, "-w")
    found = Server(f"postgresql://laser@127.0.0.1:{port}/studies", folder, control, options)
    found.start()
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "laser"]
    subprocess.run([binaries / "createdb", *at, "studies"], **run)
    yield found
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


@pytest.fixture
def server(postgresql: Server) -> str:
    return postgresql.url


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


def test_a_killed_server_is_waited_for(
    postgresql: Server, tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(storage=postgresql.url, trials=12)
    in_file = open_study(tmp_path / "file", make_config(trials=12))
    drive(in_file)
    identity = replace(in_file.identity, study_id="killed-server")
    study = open_study(tmp_path / "database", config, identity)
    drive(study, limit=4)
    job = study.next_job()
    postgresql.kill()
    back = threading.Timer(2, postgresql.start)
    back.start()
    study.died(job, "so that there is something to write")
    drive(study)
    back.join()
    assert [(t.params, t.score) for t in study.trials()] == [
        (t.params, t.score) for t in in_file.trials()
    ]


def test_a_server_that_stays_away_is_said_and_nothing_is_lost(
    postgresql: Server, tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(storage=postgresql.url, trials=8)
    hasty = config.model_copy(
        update={"cluster": config.cluster.model_copy(update={"storage_wait_s": 0.5})}
    )
    identity = replace(open_study(tmp_path / "x", make_config(trials=1)).identity, study_id="away")
    study = open_study(tmp_path / "database", hasty, identity)
    drive(study, limit=4)
    postgresql.kill()
    with pytest.raises(StorageLost, match=r"storage has not answered for 0.5 s: .*127.0.0.1"):
        drive(study)
    postgresql.start()
    with pytest.raises(StorageLost):  # it may have missed something: a resume reads it all
        drive(study)
    again = open_study(tmp_path / "database", config, identity)
    assert again.spent == 3  # and the baseline
    drive(again)
    assert again.spent == 8


def test_a_driver_elsewhere_is_met_in_the_database(postgresql: Server) -> None:
    def ledger() -> TableLedger:
        return TableLedger(postgresql.url, "study")

    with hold(ledger(), "study") as lease:
        with pytest.raises(InputError, match=f"pid {os.getpid()}"), hold(ledger(), "study"):
            pass
        with hold(TableLedger(postgresql.url, "another study"), "another"):
            pass
        lease.check()
    with hold(ledger(), "study"):
        pass


def test_passwords_are_not_shown() -> None:
    url = "postgresql://user:pa55@host:5432/db"
    assert hide_secrets(f"could not connect to {url}") == (
        "could not connect to postgresql://user:***@host:5432/db"
    )


def test_a_lease_in_a_killed_server_is_asked_again(
    postgresql: Server, tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(storage=postgresql.url, trials=4)
    identity = replace(open_study(tmp_path / "x", make_config(trials=1)).identity, study_id="both")
    lease = Lease(TableLedger(postgresql.url, "both"), "both", lease_s=0.5)
    study = open_study(tmp_path / "database", config, identity, lease.check)
    drive(study, limit=2)
    postgresql.kill()
    back = threading.Timer(2, postgresql.start)
    back.start()
    drive(study)
    back.join()
    assert study.spent == 4
    lease.close()
