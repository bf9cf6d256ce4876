"""What a program that was killed left behind on this machine, and its removal.

Every process that starts a Ray of its own has a folder for scratch with a mark: who it is, by pid
and start time, and which session of Ray it began. Only what has the mark of a process of this
machine that is no more is ever removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from search.durable import write_json
from search.study.lock import Holder
from tasks.errors import InputError

PREFIX = "laser-search-"
MARK = "owner.json"
_SESSION = re.compile(r"session_[0-9A-Za-z_-]+")


def temporary_folder() -> Path | None:
    """Where temporary folders lie; None where none can be written, as on a full disk."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def ray_folder() -> Path | None:
    """Where Ray puts its sessions; None where that cannot be known."""
    base = os.environ.get("RAY_TMPDIR") or temporary_folder()
    return None if base is None else Path(base) / "ray"


class Scratch:
    """A marked temporary folder of this process."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists and is ours."""
        self.folder = folder
        self.session = ""
        self._write()

    def began(self, session: str) -> None:
        """A Ray of our own has begun a session of this name."""
        self.session = session
        self._write()

    def _write(self) -> None:
        write_mark(self.folder, self.session)


def write_mark(folder: Path, session: str = "") -> None:
    """Write into `folder` that it is this process's."""
    owner = {k: v for k, v in asdict(Holder.here()).items() if k != "age_s"}
    write_json(folder / MARK, {"owner": owner, "session": session})


def is_abandoned(folder: Path) -> bool:
    """Whether `folder` has the mark of a process of this machine that is no more."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return Holder(**mark["owner"]).is_gone
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class Leftover:
    """Folders and processes of a program that has ended without tidying up."""

    pid: int
    folders: tuple[Path, ...]
    processes: tuple[int, ...]
    size_bytes: int

    def text(self) -> str:
        """For people."""
        parts = [f"{folder}" for folder in self.folders]
        parts += [f"process {pid}" for pid in self.processes]
        size = f"{self.size_bytes / 2**20:.0f} MiB"
        return f"pid {self.pid}, which is gone: {', '.join(parts)} ({size})"


@contextmanager
def marked_scratch() -> Iterator[Scratch]:
    """A temporary folder of this process, which goes at the end, with its Ray session's folder.

    When the block ends by a fault, Ray's logs stay until the next start. Raises InputError where no
    temporary folder can be written.
    """
    if temporary_folder() is None:
        raise InputError(
            "no temporary folder is writable (TMPDIR, /tmp, /var/tmp, the current one); free "
            "space there, or set TMPDIR to a writable folder"
        )
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        scratch = Scratch(Path(name))
        try:
            yield scratch
        except Exception as error:
            if scratch.session and not isinstance(error, InputError):
                keep = Path(tempfile.mkdtemp(prefix=PREFIX))  # the folder of the mark goes now
                shutil.copy(scratch.folder / MARK, keep / MARK)
                scratch.session = ""
            raise
        finally:
            for folder in _session_folders(scratch.session):
                shutil.rmtree(folder, ignore_errors=True)


def find_leftovers() -> list[Leftover]:
    """What processes of this user and machine that are gone have left."""
    found = []
    base = temporary_folder()
    for folder in sorted(() if base is None else base.glob(f"{PREFIX}*")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
            owner = Holder(**mark["owner"])
            if not owner.is_gone:
                continue
            session = str(mark["session"])
            folders = [folder, *_session_folders(session)]
            processes = _processes(session)
            size = sum(_size(one) for one in folders)
            found.append(Leftover(owner.pid, tuple(folders), tuple(processes), size))
    return found


def remove_leftovers() -> None:
    """Remove it: processes first."""
    for left in find_leftovers():
        for pid in left.processes:
            with suppress(psutil.Error):
                psutil.Process(pid).kill()
        for folder in reversed(left.folders):  # the mark last
            shutil.rmtree(folder, ignore_errors=True)


def _session_folders(session: str) -> list[Path]:
    base = ray_folder()
    if base is None or not _SESSION.fullmatch(session):
        return []
    folder = base / session
    with suppress(OSError):
        if not folder.is_symlink() and folder.lstat().st_uid == os.getuid():
            return [folder]
    return []


def _processes(session: str) -> list[int]:
    """Living processes of a session: Ray gives each the session's folder among its words."""
    if not _SESSION.fullmatch(session):
        return []
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        words = process.info["cmdline"] or []
        uids = process.info["uids"]
        own = uids is not None and uids.real == os.getuid()
        if own and process.info["pid"] != os.getpid() and any(session in word for word in words):
            found.append(int(process.info["pid"]))
    return found


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total
