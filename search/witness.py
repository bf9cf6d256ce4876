"""Files as they were when they were checked, and whether they still are."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import InputError

MODEL_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".bpe")
MOST_DATA_FILES = 1000
"""Of a folder of data so many files are watched."""

_TICK_S = 0.05
"""What a file system's clock may be behind: a file younger than this could change once more
without another time of change."""


class FilesChanged(InputError):  # noqa: N818  (says what happened)
    """A file that a study depends on is not what it was when it was checked."""


@dataclass(frozen=True)
class Trace:
    """What the file system says of a file; a write in place or another file changes it."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @staticmethod
    def of(path: Path) -> Trace | None:
        """The trace of the file at `path`, None if there is none. Follows symbolic links."""
        try:
            found = path.stat()
        except OSError:
            return None
        return Trace(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def model_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that a model, its tokenizer or its code is read from."""
    with os.scandir(folder) as found:
        names = [e.name for e in found if e.name.endswith(MODEL_FILES) and e.is_file()]
    return [folder / name for name in sorted(names)]


def data_files(path: Path) -> list[Path]:
    """A file of data, or those in a folder of it; none for what lies elsewhere."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())[:MOST_DATA_FILES]
    return [path] if path.is_file() else []


def digest_file(path: Path) -> str:
    """BLAKE2b of a file's bytes, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


class Witness:
    """Knows files from before they were first read, and raises FilesChanged once one differs.

    A look costs a `stat` a file; only a file whose trace changed is read again. What was read
    between two looks that agree was read from files that did not change in between.
    """

    def __init__(self, folder: Path | None = None, data: Iterable[Path] = ()) -> None:
        """Note the traces of the model's files in `folder` and of `data`; reads none of them."""
        self._folder = folder
        self._data = tuple(data)
        self.traces = {path: Trace.of(path) for path in self._paths()}
        self.digests: dict[Path, str] = {}

    def seal(self) -> None:
        """Digest every file once. Raises FilesChanged if one changed since it was noted."""
        newest = max((t.changed_ns for t in self.traces.values() if t is not None), default=0)
        if 0 <= time.time_ns() - newest < _TICK_S * 1e9:
            time.sleep(_TICK_S)
        for path in self.traces:
            try:
                self.digests[path] = digest_file(path)
            except OSError as error:
                raise FilesChanged(
                    f"{path} cannot be read ({error.strerror}); restore it"
                ) from None
        now = {path: Trace.of(path) for path in self._paths()}
        changed = [p for p in {**self.traces, **now} if self.traces.get(p) != now.get(p)]
        if changed:
            raise FilesChanged(f"{_names(changed)} changed while it was being read; start again")

    def check(self) -> None:
        """Raises FilesChanged if a file is not what it was sealed as, is gone, or is new."""
        paths = self._paths()
        changed = [path for path in self.traces if path not in paths]
        for path in paths:
            trace = Trace.of(path)
            if trace is not None and self.traces.get(path) == trace:
                continue
            if not self._is_the_same(path):
                changed.append(path)
                continue
            self.traces[path] = trace  # touched, or put back: its bytes are those that were sealed
        if changed:
            raise FilesChanged(f"{_names(changed)} changed while the study ran")

    def _is_the_same(self, path: Path) -> bool:
        try:
            return path in self.digests and digest_file(path) == self.digests[path]
        except OSError:
            return False

    def _paths(self) -> list[Path]:
        try:
            own = model_files(self._folder) if self._folder is not None else []
        except OSError:
            own = []
        return [*own, *self._data]

    def facts(self) -> dict[str, tuple[Trace | None, str]]:
        """Trace and digest of the model's files by name, for a worker."""
        return {
            path.name: (self.traces[path], digest)
            for path, digest in self.digests.items()
            if path not in self._data
        }

    @staticmethod
    def sworn(folder: Path, facts: Mapping[str, tuple[Trace | None, str]]) -> Witness:
        """A witness of the checkpoint in `folder` that knows what another has sealed.

        On the same file system nothing is read; elsewhere each file is digested at the first look.
        """
        found = Witness()
        found._folder = folder
        found.traces = {folder / name: trace for name, (trace, _) in facts.items()}
        found.digests = {folder / name: digest for name, (_, digest) in facts.items()}
        return found


def _names(paths: Iterable[Path]) -> str:
    names = sorted(str(path) for path in set(paths))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
