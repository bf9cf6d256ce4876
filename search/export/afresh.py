"""A check in a process of its own, which knows nothing but the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from search.interruption import Interrupted
from tasks.errors import InputError


def run_afresh(module: str, folder: Path, *words: str) -> None:
    """Run `main` of `module` on `folder` and `words` in a new process; it finds this installation.

    Raises InputError if it fails; Interrupted with what to know if a signal ends it.
    """
    # The public package comes first: a search.py in the working folder is not ours.
    code = f"import laser_search\nfrom {module} import main\nmain()"
    command = [sys.executable, "-c", code, str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except Interrupted as asked:
        note = f"{folder} is written but not verified; --overwrite lets the same command replace it"
        raise Interrupted(asked.number, note) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(
            f"{folder} is written but could not be verified: {last.removeprefix('laser-search: ')}"
        )
