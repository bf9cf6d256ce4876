"""A Ray session for one command: a Ray of our own on this machine, or a cluster that runs."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from cluster.preemption import Preemption
from cluster.privates import forget_token, own_process_session, servants_left_out, stage_in
from cluster.ray_room import check_room
from cluster.ray_watch import RayWatch, raylet_of
from cluster.shipping import cluster_environment, local_environment
from search.interruption import ENDING
from search.leftovers import marked_scratch, ray_folder, remove_leftovers
from search.sections import ClusterConfig
from search.verbosity import Verbosity, current
from tasks.errors import InputError

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_COLOR_PREFIX": "0",
}
"""Tune's loggers, checkpoints and printing cost more than a trial and say nothing that the study
does not. How many trials may wait for a worker is the study's own affair. Lines of workers, which
--verbose shows, have no colours: they would be shown as escapes. Set before Ray is imported."""

LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""For a Ray of our own: all its servers listen on 127.0.0.1. The name speaks of the systems where
this is Ray's default; elsewhere they would listen on every interface. And no worker for every CPU
before there is work: they would lack our runtime environment, and never be given any."""

PATIENCE_S = 10.0
"""How long a cluster may take to answer, and the processes of a local Ray to end."""

HURRIED_S = 1.0
"""The same for a driver that a signal has asked to end."""

OBJECT_STORE_BYTES = 512 * 2**20


@contextmanager
def ray_session(config: ClusterConfig, preemption: Preemption | None = None) -> Iterator[None]:
    """A local Ray of our own, or the cluster at the configured address. Raises InputError.

    What earlier programs left on this machine is removed first. `preemption` takes the signals
    meanwhile; without it they are left alone. If Ray is lost, it ends the process.
    """
    watched = preemption or Preemption()
    settings = dict(SETTINGS)
    if config.address is None:
        settings |= _own_token()
    else:
        settings |= _authentication()
    if config.address is None or _host(config.address)[0] in ("127.0.0.1", "localhost"):
        settings |= LOCAL_SETTINGS
    os.environ.update({k: v for k, v in settings.items() if k not in os.environ})
    if config.address is None:
        check_room()
    remove_leftovers()
    with marked_scratch() as scratch:
        watched.check()
        loud = current() is Verbosity.VERBOSE
        quiet: dict[str, Any] = {
            "log_to_driver": loud,
            "logging_level": "INFO" if loud else "ERROR",
        }
        roots: Sequence[psutil.Process] = ()
        with signals_kept():
            import ray

            if config.address is None:
                forget_token()
                # Without an address Ray would attach to any cluster that runs on this machine.
                known = psutil.Process().children()
                watched.kill_helpers = lambda: _end(_fleet(_new(known)), 0.0)
                roots = _start(runtime_env=local_environment(scratch.folder), **quiet)
                scratch.began(ray.get_runtime_context().get_session_name())
            else:
                _join(config.address, runtime_env=cluster_environment(scratch.folder), **quiet)
                if config.address.startswith("ray://"):
                    stage_in(scratch.folder.as_posix)
        watched.insist()  # Ray's C++ code prints a stack on SIGTERM before it passes it on
        server = None if config.address is None else _server(config.address)
        watch = RayWatch(watched.lost, roots or _own_raylet(config.address), server)
        try:
            with watch:
                watched.check()
                yield
        finally:
            fleet = _fleet(roots)
            ray.shutdown()
            _end(fleet, PATIENCE_S if watched.asked is None else HURRIED_S)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Within, nobody takes the signals that end a program: Ray would, and raise in its own code."""
    usual = signal.signal

    def keep(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number in ENDING else usual(number, handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = usual


def _own_token() -> dict[str, str]:
    """A token of this process for its own Ray: no other user of the machine can speak to it.

    By default Ray writes one for all of a user's sessions, readable by all, into the home folder.
    """
    if "RAY_AUTH_MODE" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _server(address: str) -> tuple[str, int] | None:
    """Where a cluster is asked whether it lives."""
    import ray

    host, port = _host(address)
    if not address.startswith("ray://") and ray.is_initialized():
        host, port = _host(str(ray.get_runtime_context().gcs_address))
    return (host, port) if host and port is not None else None


def _own_raylet(address: str | None) -> list[psutil.Process]:
    """The raylet that this driver is connected to; none through the client port."""
    import ray

    if address is None or address.startswith("ray://"):
        return []
    here = ray.get_runtime_context().get_node_id()
    names = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == here]
    return [process for name in names for process in raylet_of(name)]


def _new(known: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Children of this process but those that were `known`."""
    return [process for process in psutil.Process().children() if process not in known]


def _fleet(roots: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The processes of a Ray, from those that it was started as."""
    return [*roots, *chain.from_iterable(map(_descendants, roots))]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _end(processes: Sequence[psutil.Process], patience_s: float) -> None:
    """Wait until processes of a Ray that is gone have ended; kill those that do not.

    A worker ends by itself when it notices, which one that hangs never does: it would keep its GPU.
    """
    deadline = time.monotonic() + patience_s
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
        with own_process_session(), servants_left_out(bool(options.get("log_to_driver"))):
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **options,
            )
    except Exception as error:  # Ray raises no kinds of its own here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        check_room()  # it may be full, or gone, only since
        raise InputError(
            f"Ray does not start on this machine: {first.rstrip('.')}; {_remedy(error)}"
        ) from None
    return _new(before)


def _remedy(error: Exception) -> str:
    """What to do about a Ray that does not come up."""
    logs = f"its logs are in {ray_folder() or Path('/tmp/ray')}/session_latest/logs"  # noqa: S108
    if any(word in str(error).lower() for word in ("timed out", "timeout")):
        return f"try again when the machine is less busy; {logs}"
    return logs


def _authentication() -> dict[str, str]:
    """Ray's token, where this user has one: ray start asks for it, ray.init alone does not."""
    default = str(Path.home() / ".ray" / "auth_token")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", default))
    known = "RAY_AUTH_TOKEN" in os.environ or path.is_file()
    return {"RAY_AUTH_MODE": "token"} if known else {}


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
