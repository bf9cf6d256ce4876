"""Ray's private names that are used, each with what happens where it is no more.

Checked with Ray 2.60 (tests/cluster/test_privates.py). None is looked up at import.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

CHECKED = "2.60"


@contextmanager
def own_process_session() -> Iterator[None]:
    """Within, Ray starts its processes in a session (of the kernel) of their own.

    So signals to the group of the program, as `timeout` and a closing terminal send them, reach the
    program alone. Without ``services.ConsolePopen`` they reach Ray's processes too.
    """
    try:
        from ray._private import services

        usual: Any = services.ConsolePopen
        if not issubclass(usual, subprocess.Popen):
            raise TypeError
    except (ImportError, AttributeError, TypeError):
        yield
        return

    class Apart(usual):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "start_new_session": True})

    services.ConsolePopen = Apart
    try:
        yield
    finally:
        services.ConsolePopen = usual


SERVANTS = ("start_api_server", "start_monitor", "start_log_monitor")


@contextmanager
def servants_left_out(logs: bool) -> Iterator[None]:
    """Within, Ray starts no API server and no autoscaler, and a log monitor only for `logs`.

    No study asks them anything, and each is a Python that takes a second to start. Without
    ``node.Node`` and its methods Ray starts them all.
    """
    try:
        from ray._private.node import Node
    except ImportError:
        yield
        return
    usual = {name: getattr(Node, name, None) for name in SERVANTS}
    if not all(usual.values()):
        yield
        return

    def nothing(node: Any, **options: Any) -> None:
        node._webui_url = ""  # which starting the API server sets

    for name in usual:
        if not (logs and name == "start_log_monitor"):
            setattr(Node, name, nothing)
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(Node, name, method)


def forget_token() -> None:
    """Let Ray read its token anew, which it remembers from when it was first imported.

    Without ``_raylet.AuthenticationTokenLoader`` only a program that imports Ray before us suffers.
    """
    try:
        raylet: Any = import_module("ray._raylet")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    except (ImportError, AttributeError):
        return


def stage_in(folder: Callable[[], str]) -> None:
    """Let Tune's controller run in a client of ``ray://``, which is no node of the cluster.

    It asks its own node where to stage files, and has none. Without
    ``storage._get_ray_train_session_dir`` it asks, and a search over ``ray://`` fails.
    """
    try:
        from ray.train._internal import storage
    except ImportError:
        return
    if hasattr(storage, "_get_ray_train_session_dir"):
        storage._get_ray_train_session_dir = folder


def actor_of(trial: Any) -> Any | None:
    """The actor that runs a Tune trial, None where none does.

    Without ``Trial.temporary_state.ray_actor`` no worker is given a job within its Tune trial, so
    that every job has one of its own, and none that hangs is killed.
    """
    return getattr(getattr(trial, "temporary_state", None), "ray_actor", None)


@contextmanager
def idle_workers_kept(most: Callable[[], int]) -> Iterator[None]:
    """Within, Tune keeps `most` actors that wait for a trial, where it would keep one.

    Else those that wait while one of them screens are ended, and load the model again; so does
    one at the end, when baseline and winner are asked the questions of test. Without effect where
    ``tune_controller._ObjectCache`` is no more or counts in another way.
    """
    from ray.tune.execution import tune_controller

    usual: Any = getattr(tune_controller, "_ObjectCache", None)
    counts = {"_num_cached_objects", "_cached_objects"}
    if usual is None or not counts <= vars(usual()).keys():
        yield
        return

    class Keeping(usual):  # type: ignore[misc]
        def cache_object(self, key: Any, obj: Any) -> bool:
            if super().cache_object(key, obj):
                return True
            if self._num_cached_objects >= most():
                return False
            self._cached_objects[key].append(obj)
            self._num_cached_objects += 1
            return True

        def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
            if force_all:
                yield from super().flush_cached_objects(force_all)
            for idle in self._cached_objects.values():
                while idle and self._num_cached_objects > most():
                    self._num_cached_objects -= 1
                    yield idle.pop(0)

    tune_controller._ObjectCache = Keeping
    try:
        yield
    finally:
        tune_controller._ObjectCache = usual
