"""Who computes what: a claim on a piece of work that ends with its holder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def claim(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` for the duration; yield False if another process has it.

    With `wait` the other is waited for. The system frees the lock when its holder dies, however it
    dies, so no claim is ever stale; the empty file stays, since unlinking it would race. On file
    systems without locks, and where an existing lock file may not be opened, True is yielded: a
    claim saves work, and what it guards must be right without. Raises OSError if `path` cannot be
    created.
    """
    lock = FileLock(path, mode=0o666)
    held = True
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        held = False
    except (OSError, NotImplementedError) as error:
        number = getattr(error, "errno", errno.ENOSYS)
        if number not in _NO_LOCKS and not (number in _NOT_WRITABLE and path.exists()):
            raise
        _log.info("%s cannot be locked (%s); the same factors may be computed twice", path, error)
    try:
        yield held
    finally:
        if lock.is_locked:
            lock.release()
