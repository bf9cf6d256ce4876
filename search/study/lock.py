"""One driver per study: a lease that its holder renews, and that another may take when it is stale.

It lies beside the study, in the folder and, for a storage that is a server, in a table there, so
that it holds between machines that share one of the two. A kernel's lock would not: it ends at the
machine, or at what a network file system makes of it.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from search.durable import write_text
from search.study.storages import StorageLost, refusal
from tasks.errors import InputError

FOLDER = "lease"
FREE = "nobody\n"
LEASE_S = 60.0
"""Seconds without renewal after which a lease on another machine counts as left behind."""

RENEW_S = 10.0


@dataclass(frozen=True)
class Holder:
    """A driver: its `host` and `pid` for people, `machine` and `started` to know whether it lives.

    `since` is in seconds of the epoch by the holder's clock, `age_s` the time since the last
    renewal by the clock of whoever keeps the lease, so that clocks need not agree.
    """

    host: str
    pid: int
    machine: str
    started: str
    since: float
    token: str
    age_s: float = 0.0

    @staticmethod
    def here() -> Holder:
        """Return this process, with a token of its own."""
        pid = os.getpid()
        return Holder(
            socket.gethostname(),
            pid,
            _machine(),
            _started(pid) or "",
            time.time(),
            token=uuid.uuid4().hex,
        )

    @property
    def is_neighbour(self) -> bool:
        """Whether it runs, or ran, on this machine and its id can be looked up."""
        return self.machine == _machine()

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and is no more; False if that cannot be known."""
        return self.machine == _machine() and _started(self.pid) != self.started

    @property
    def text(self) -> str:
        """Who it is, for people."""
        return f"host {self.host}, pid {self.pid}, for {max(0.0, time.time() - self.since):.0f} s"


class Ledger(Protocol):
    """Where a lease is written down. Every change is atomic among machines."""

    def read(self) -> Holder | None:
        """Who holds it, alive or not."""
        ...

    def claim(self, mine: Holder, seen: Holder | None) -> bool:
        """Make it `mine` if what is written is still what was `seen`."""
        ...

    def renew(self, mine: Holder) -> bool:
        """Reset the age; False if it is another's now."""
        ...

    def release(self, mine: Holder) -> None:
        """Give it back if it is `mine`."""
        ...


class FolderLedger:
    """A lease as the last of a row of numbered files, of which only one driver can make the next.

    That is how one gets it of all who see at once that it was left behind. Its holder renews it by
    its time of change and gives it back by emptying it; nothing but an older number is removed.
    Ages are differences of two times that the files' own server gave, so clocks need not agree,
    and renewing needs no room on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` exists; it may be shared by machines."""
        self._folder = folder / FOLDER

    def read(self) -> Holder | None:
        """Who holds it; an unreadable file is held by somebody unknown."""
        return self._last()[1]

    def _last(self) -> tuple[int, Holder | None]:
        while number := max(self._numbers(), default=0):
            with suppress(FileNotFoundError):  # swept: there is a later one
                return number, self._read(self._folder / str(number))
        return 0, None

    def _numbers(self) -> list[int]:
        try:
            return [int(path.name) for path in self._folder.iterdir() if path.name.isdigit()]
        except FileNotFoundError:
            return []

    def _read(self, path: Path) -> Holder | None:
        age_s = self._now() - path.stat().st_mtime
        text = path.read_text(encoding="utf-8")
        if text == FREE:
            return None
        try:
            return Holder(**{**json.loads(text), "age_s": age_s})
        except (ValueError, TypeError):  # being written, or its writer died
            return Holder("unknown", 0, "", "", time.time() - age_s, f"unread {text}", age_s)

    def _now(self) -> float:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as probe:
                return os.fstat(probe.fileno()).st_mtime
        except OSError:  # a full disk
            return time.time()

    def claim(self, mine: Holder, seen: Holder | None) -> bool:
        """Make the number after that of `seen`."""
        number, found = self._last()
        if (found and found.token) != (seen and seen.token):
            return False
        path = self._folder / str(number + 1)
        if not self._create(path, mine):
            return False
        if max(self._numbers()) > number + 1:  # swept before it was made anew: others were quicker
            path.unlink()
            return False
        for older in self._numbers():
            if older <= number:
                (self._folder / str(older)).unlink(missing_ok=True)
        return True

    def _create(self, path: Path, mine: Holder) -> bool:
        text = json.dumps({k: v for k, v in asdict(mine).items() if k != "age_s"})
        try:
            self._folder.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            return False
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise InputError(refusal(path, error)) from None
        return True

    def renew(self, mine: Holder) -> bool:
        """Touch it."""
        number, found = self._last()
        if found is None or found.token != mine.token:
            return False
        os.utime(self._folder / str(number))
        return True

    def release(self, mine: Holder) -> None:
        """Empty it: who comes next makes the next number."""
        number, found = self._last()
        if found is not None and found.token == mine.token:
            write_text(self._folder / str(number), FREE)


class Lease:
    """A driver's hold on a study, renewed by a thread until `close`."""

    def __init__(self, ledger: Ledger, what: str, lease_s: float = LEASE_S) -> None:
        """Take it. Raises InputError if a living driver holds it, with its host, pid and age."""
        self._ledger = ledger
        self._what = what
        self._lease_s = lease_s
        self._mine = Holder.here()
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._thread.start()

    @property
    def token(self) -> str:
        """What tells this hold from every other."""
        return self._mine.token

    def _take(self) -> None:
        while True:
            seen = self._ledger.read()
            if seen is not None and not (seen.is_gone or seen.age_s > self._lease_s):
                raise InputError(
                    f"{self._what} is being run by another process ({seen.text}); "
                    "wait for it or stop it first"
                )
            self._renewed = time.monotonic()
            if self._ledger.claim(self._mine, seen):
                return

    def _keep(self) -> None:
        while not self._ended.wait(min(RENEW_S, self._lease_s / 6)):
            with suppress(Exception):  # a server that is away; `check` says when it was too long
                if not self._renew():
                    return

    def _renew(self) -> bool:
        before = time.monotonic()
        if not self._ledger.renew(self._mine):
            return False
        self._renewed = before
        return True

    def check(self) -> None:
        """Whether it is surely held still. Raises StorageLost if another driver took it over.

        Cheap unless the renewals fell behind: this process was suspended, or the server away.
        """
        if time.monotonic() - self._renewed < self._lease_s / 2:
            return
        try:
            held = self._renew()
        except OSError as error:
            raise StorageLost(f"{self._what}: its lease cannot be renewed ({error})") from None
        if not held:
            holder = self._ledger.read()
            who = "" if holder is None else f" ({holder.text})"
            raise StorageLost(f"another process drives {self._what} now{who}")

    def close(self) -> None:
        """Give it back."""
        self._ended.set()
        self._thread.join(timeout=RENEW_S)
        self.release()

    def release(self) -> None:
        """Give it back without waiting for anything."""
        self._ended.set()
        with suppress(Exception):
            self._ledger.release(self._mine)


@contextmanager
def hold(ledger: Ledger, what: str) -> Iterator[Lease]:
    """A lease for the time of a block. Raises InputError if a living driver holds it."""
    lease = Lease(ledger, what)
    try:
        yield lease
    finally:
        lease.close()


def driver_lock(folder: Path) -> AbstractContextManager[Lease]:
    """The lease of a study folder. Raises InputError if another driver holds it."""
    return hold(FolderLedger(folder), str(folder))


def find_driver(folder: Path) -> Holder | None:
    """Who drives the study in `folder`; None if nobody does, as far as that can be known."""
    holder = FolderLedger(folder).read()
    if holder is None or holder.is_gone or holder.age_s > LEASE_S:
        return None
    return holder


def _machine() -> str:
    """What is the same for processes that see each other's ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return f"{socket.gethostname()}/{uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """When process `pid` began, by the kernel's count where there is one; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""
