"""A Ray session for one command: a Ray of our own on this machine, or a cluster that runs."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from cluster.ray_room import check_room
from cluster.shipping import cluster_environment, local_environment
from search.config import ClusterConfig
from tasks.errors import InputError

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Tune's loggers, checkpoints and printing cost more than a trial and say nothing that the study
does not; how many trials may wait for a worker is the study's own affair. Set before Ray is
imported."""

LOCAL_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For a Ray of our own: all its servers listen on 127.0.0.1. The name speaks of the systems where
this is Ray's default; elsewhere they would listen on every interface."""

PATIENCE_S = 10.0
"""How long a cluster may take to answer, and the processes of a local Ray to end."""

OBJECT_STORE_BYTES = 512 * 2**20


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """A local Ray of our own, or the cluster at the configured address. Raises InputError."""
    settings = dict(SETTINGS)
    if config.address is not None:
        settings |= _authentication()
    if config.address is None or _host(config.address)[0] in ("127.0.0.1", "localhost"):
        settings |= LOCAL_SETTINGS
    os.environ.update({k: v for k, v in settings.items() if k not in os.environ})
    if config.address is None:
        check_room()
    import ray

    with tempfile.TemporaryDirectory(prefix="laser-search-") as name:
        scratch = Path(name)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        roots: Sequence[psutil.Process] = ()
        if config.address is None:
            # Without an address Ray would attach to any cluster that runs on this machine.
            roots = _start(runtime_env=local_environment(scratch), **quiet)
        else:
            _join(config.address, runtime_env=cluster_environment(scratch), **quiet)
            if config.address.startswith("ray://"):
                _stage_here(scratch)
        try:
            yield
        finally:
            fleet = [*roots, *chain.from_iterable(map(_descendants, roots))]
            ray.shutdown()
            _end(fleet)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _end(processes: Sequence[psutil.Process]) -> None:
    """Wait until processes of a Ray that is gone have ended; kill those that do not.

    A worker ends by itself when it notices, which one that hangs never does: it would keep its GPU.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (left := [p for p in processes if _lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        with suppress(psutil.Error):  # kill() asks whether the id is still this process's
            process.kill()


def _lives(process: psutil.Process) -> bool:
    """Whether it runs or is stopped, and is no zombie that only waits to be buried."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _start(**options: Any) -> list[psutil.Process]:
    """Start a Ray of our own: its processes, save their children.

    Raises InputError if it does not come up.
    """
    import ray

    before = psutil.Process().children()
    try:
        ray.init(
            "local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **options,
        )
    except Exception as error:  # Ray raises no kinds of its own here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"Ray does not start on this machine: {first.rstrip('.')}; try again when it is less "
            "busy, or look into /tmp/ray/session_latest/logs"
        ) from None
    return [process for process in psutil.Process().children() if process not in before]


def _authentication() -> dict[str, str]:
    """Ray's token, where this user has one: ray start asks for it, ray.init alone does not."""
    default = str(Path.home() / ".ray" / "auth_token")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", default))
    known = "RAY_AUTH_TOKEN" in os.environ or path.is_file()
    return {"RAY_AUTH_MODE": "token"} if known else {}


def _stage_here(folder: Path) -> None:
    """Let Tune's controller run in a client of ``ray://``, which is no node of the cluster.

    It asks its own node where to stage files, and has none. The study must stay in this process,
    so it is given a folder instead of being sent to the cluster.
    """
    from ray.train._internal import storage

    storage._get_ray_train_session_dir = folder.as_posix


def _host(address: str) -> tuple[str, int | None]:
    """Host and port that an address names; no host for ``auto``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return host, int(port) if host and port.isdigit() else None


def _join(address: str, **options: Any) -> None:
    """Connect to a running cluster. Raises InputError if there is none."""
    import ray

    try:
        host, port = _host(address)
        if port is not None:  # Ray itself would try for minutes
            socket.create_connection((host, port), PATIENCE_S).close()
        try:
            ray.init(address, **options)
        except ConnectionAbortedError:
            # Now and then the process that a ray:// server forks for a client does not survive it.
            ray.init(address, **options)
    except ImportError as error:
        raise InputError(
            f"cluster.address {address!r} needs a package that is not installed ({error}); "
            "install laser-search[client]"
        ) from None
    except Exception as error:  # Ray and gRPC raise many kinds; each means that it is not to be had
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cluster.address {address!r} does not answer: {first}; "
            "start Ray there or use null for a local one"
        ) from None
