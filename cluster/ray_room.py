"""Whether a Ray of our own finds room for its files: sockets have short names."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tasks.errors import InputError

_LONGEST_BYTES = 107
"""What Linux takes as the path of a socket."""

_SESSION = "ray/session_2026-11-25_23-59-59_123456_{pid}/sockets/plasma_store"


def check_room() -> None:
    """Raise InputError if Ray's temporary folder cannot be written, or its path is too long."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "RAY_TMPDIR")
    base = Path(os.environ.get(variable) or "/tmp")  # noqa: S108  # Ray's own rule
    socket = base / _SESSION.format(pid=os.getpid())
    if (length := len(os.fsencode(socket))) > _LONGEST_BYTES:
        raise InputError(
            f"the temporary folder {base} has too long a path for Ray's sockets ({length} bytes, "
            f"{_LONGEST_BYTES} at most); set RAY_TMPDIR to a short one, such as /tmp"
        )
    try:
        with tempfile.TemporaryDirectory(dir=base):
            pass
    except OSError as error:
        raise InputError(
            f"Ray's temporary folder {base} cannot be written ({error.strerror}); set "
            f"{variable} to a writable folder"
        ) from None
