"""A check in a process of its own, which knows nothing but the files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from search.interruption import Interrupted
from search.phases import SILENT, Phases, retell
from tasks.errors import InputError


@contextmanager
def unverified(folder: Path) -> Iterator[None]:
    """While `folder` is whole but its check is not over: an interruption says so."""
    try:
        yield
    except Interrupted as asked:
        note = f"{folder} is written but not verified; --overwrite lets the same command replace it"
        raise Interrupted(asked.number, note) from None


def run_afresh(module: str, folder: Path, *words: str, phases: Phases = SILENT) -> None:
    """Run `main` of `module` on `folder` and `words` in a new process; it finds this installation.

    `phases` hears what `main` relays on its standard output (`search.phases.relay`). Raises
    InputError if it fails; Interrupted with what to know if a signal ends it.
    """
    # The public package comes first: a search.py in the working folder is not ours.
    source = f"import laser_search\nfrom {module} import main\nmain()"
    command = [sys.executable, "-c", source, str(folder), *words]
    with unverified(folder):
        code, said = _listen(command, phases)
    if code:
        last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
        raise InputError(
            f"{folder} is written but could not be verified: {last.removeprefix('laser-search: ')}"
        )


def _listen(command: Sequence[str], phases: Phases) -> tuple[int, str]:
    """Run a command and tell `phases` what it relays; its exit code and standard error."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                retell(line, phases)
            process.wait()
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        return process.returncode, errors.read()
