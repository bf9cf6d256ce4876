"""One driver at a time, whatever became of the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from search.study.lock import FOLDER, LEASE_S, FolderLedger, Holder, Lease, driver_lock, hold
from search.study.lock_table import TableLedger
from search.study.storages import StorageLost
from tasks.errors import InputError

HOLDING = """
import sys, time
from pathlib import Path
from search.study.lock import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["folder", "table"])
def ledger(request, tmp_path: Path):
    if request.param == "folder":
        return FolderLedger(tmp_path)
    return TableLedger(f"sqlite:///{tmp_path / 'studies.db'}", "study")


def elsewhere(**changes: object) -> Holder:
    """A driver on another machine."""
    there = replace(Holder.here(), host="far", pid=4711, machine="another")
    return replace(there, **changes)


def age(ledger, seconds: float) -> None:
    """Let the last renewal be `seconds` ago by the clock of whoever keeps the lease."""
    if isinstance(ledger, FolderLedger):
        at = time.time() - seconds
        os.utime(max(ledger._folder.iterdir(), key=lambda path: int(path.name)), (at, at))
        return
    from datetime import UTC, datetime, timedelta

    from search.study.lock_table import LEASES

    with ledger._engine.begin() as connection:
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        connection.execute(LEASES.update().values(renewed=at))


def test_the_second_is_told_who_holds_it(ledger) -> None:
    with hold(ledger, "this study"):
        words = rf"this study is .*host .*, pid {os.getpid()}, for \d+ s"
        with pytest.raises(InputError, match=words), hold(ledger, "this study"):
            pass
    with hold(ledger, "this study"):
        pass
    assert ledger.read() is None


def test_a_lease_of_another_machine_holds_until_it_expires(ledger) -> None:
    assert ledger.claim(elsewhere(since=time.time() - 300), None)
    age(ledger, LEASE_S - 15)
    with pytest.raises(InputError, match="host far, pid 4711, for 300 s"):
        Lease(ledger, "it")
    age(ledger, LEASE_S + 5)
    with hold(ledger, "it"):
        assert ledger.read().pid == os.getpid()


def test_a_lease_is_renewed_while_its_holder_lives(ledger, monkeypatch) -> None:
    monkeypatch.setattr("search.study.lock.RENEW_S", 0.05)
    lease = Lease(ledger, "it")
    try:
        age(ledger, 1000)
        deadline = time.monotonic() + 120
        while ledger.read().age_s > LEASE_S:
            assert time.monotonic() < deadline, "its holder was to renew it every 0.05 s"
            time.sleep(0.01)
        with pytest.raises(InputError, match="is being run by another process"):
            Lease(ledger, "it")
        lease.check()
    finally:
        lease.close()


def test_a_clock_set_back_takes_no_lease_away_and_gives_none_twice(ledger, monkeypatch) -> None:
    """The lease was then renewed an hour from now, by the clock of whoever keeps it."""
    monkeypatch.setattr("search.study.lock.RENEW_S", 0.05)
    lease = Lease(ledger, "it")
    try:
        age(ledger, -3600)
        with pytest.raises(InputError, match="is being run by another process"):
            Lease(ledger, "it")
        lease._renewed -= LEASE_S
        lease.check()
        deadline = time.monotonic() + 120
        while ledger.read().age_s < -60:
            assert time.monotonic() < deadline, "its holder was to renew it every 0.05 s"
            time.sleep(0.01)
    finally:
        lease.close()
    with hold(ledger, "it"):
        pass


def test_a_holder_who_was_suspended_notices_the_new_one(ledger) -> None:
    lease = Lease(ledger, "it")
    lease._ended.set()  # as if this process, its thread included, had been suspended
    lease._thread.join()
    age(ledger, LEASE_S + 5)
    lease._renewed -= LEASE_S + 5
    lease.check()  # nobody came: it goes on
    assert ledger.read().age_s < LEASE_S, "and is renewed"
    assert ledger.claim(elsewhere(), ledger.read())
    lease._renewed -= LEASE_S + 5
    with pytest.raises(StorageLost, match=r"another process drives it now .host far, pid 4711"):
        lease.check()
    lease.close()
    assert ledger.read().host == "far", "what is another's is not given back"


def test_who_saw_a_lease_that_was_taken_since_does_not_get_it(ledger) -> None:
    assert ledger.claim(elsewhere(), None)
    seen = ledger.read()
    quicker, slower = elsewhere(token="quicker"), elsewhere(token="slower")
    assert ledger.claim(quicker, seen)
    assert not ledger.claim(slower, seen)
    assert not ledger.claim(slower, None)
    assert ledger.renew(quicker)
    ledger.release(quicker)
    assert not ledger.claim(slower, seen)
    assert ledger.claim(slower, None)


@pytest.mark.parametrize("again", range(20))
def test_of_many_that_come_at_once_one_gets_it(ledger, again: int) -> None:
    assert ledger.claim(elsewhere(), None)
    age(ledger, LEASE_S + 5)
    held, refused = [], []
    start = threading.Barrier(8)

    def come() -> None:
        start.wait()
        try:
            held.append(Lease(ledger, "it"))
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    held[0].check()
    held[0].close()


def test_a_killed_driver_leaves_the_study_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"pid {driver.pid}"), driver_lock(tmp_path):
            pass
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        with driver_lock(tmp_path):
            pass


def test_an_id_that_another_process_has_now_is_no_life(tmp_path: Path) -> None:
    dead = replace(Holder.here(), started="1")  # same machine and id, begun at another time
    assert FolderLedger(tmp_path).claim(dead, None)
    with driver_lock(tmp_path):
        pass


def test_what_cannot_be_read_is_held_until_it_expires(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "1").touch()
    with pytest.raises(InputError, match="host unknown"), driver_lock(tmp_path):
        pass
    age(FolderLedger(tmp_path), LEASE_S + 1)
    with driver_lock(tmp_path):
        pass
