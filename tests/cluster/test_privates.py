"""Ray's private names: there in the version that was checked, and borne where they are not."""

from __future__ import annotations

import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import privates
from cluster.privates import (
    actor_of,
    forget_token,
    idle_workers_kept,
    own_process_session,
    servants_left_out,
    stage_in,
)

ROOT = Path(__file__).parents[2]


def test_every_private_name_is_there_in_the_version_that_was_checked() -> None:
    from ray import _raylet
    from ray._private import node, services
    from ray.train._internal import storage
    from ray.tune.execution import tune_controller
    from ray.tune.experiment import Trial

    assert version("ray").startswith(f"{privates.CHECKED}."), (
        "look through cluster/privates.py with this Ray, and note its version there"
    )
    assert issubclass(services.ConsolePopen, subprocess.Popen)
    assert all(callable(getattr(node.Node, name)) for name in privates.SERVANTS)
    assert callable(storage._get_ray_train_session_dir)
    assert {"_num_cached_objects", "_cached_objects"} <= vars(tune_controller._ObjectCache()).keys()
    assert hasattr(Trial("stub", stub=True).temporary_state, "ray_actor")
    assert hasattr(_raylet.AuthenticationTokenLoader.instance(), "reset_cache")


def test_processes_of_ray_are_in_a_session_of_their_own() -> None:
    import os

    from ray._private import services

    with own_process_session(), services.ConsolePopen(["sleep", "100"]) as process:
        try:
            assert os.getsid(process.pid) == process.pid != os.getsid(0)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "name",
    [
        "ray._private.services.ConsolePopen",
        "ray._private.node.Node",
        "ray._private.node.Node.start_monitor",
        "ray.train._internal.storage._get_ray_train_session_dir",
        "ray._raylet.AuthenticationTokenLoader",
        "ray.tune.execution.tune_controller._ObjectCache",
    ],
)
def test_a_rename_is_borne(name: str, monkeypatch) -> None:
    monkeypatch.delattr(name)
    with own_process_session(), idle_workers_kept(lambda: 2):
        with servants_left_out(logs=False):
            pass
        stage_in(str)
        forget_token()
    assert actor_of(SimpleNamespace(temporary_state=SimpleNamespace())) is None


@pytest.mark.parametrize("logs", [True, False])
def test_a_log_monitor_is_started_for_those_who_want_logs(logs: bool) -> None:
    from ray._private.node import Node

    usual = {name: getattr(Node, name) for name in privates.SERVANTS}
    with servants_left_out(logs):
        left = {name for name, method in usual.items() if getattr(Node, name) is not method}
        node = SimpleNamespace()
        Node.start_api_server(node, include_dashboard=False, raise_on_failure=False)
        assert node._webui_url == "", "Ray reads it when it has started"
    assert left == set(privates.SERVANTS) - ({"start_log_monitor"} if logs else set())
    assert all(getattr(Node, name) is method for name, method in usual.items())


def test_the_next_major_version_is_not_installed_unseen() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {line.split(">=")[0]: line for line in project["dependencies"]}
    assert needed["optuna"].endswith(",<6")
    assert needed["ray[tune]"].endswith(",<3")
    assert needed["transformers"].endswith(",<6")


def test_workers_that_wait_are_kept_as_long_as_they_are_wanted() -> None:
    """Tune's own cache of actors, asked as its controller asks it."""
    from ray.tune.execution import tune_controller

    wanted = 3
    with idle_workers_kept(lambda: wanted):
        cache = tune_controller._ObjectCache(may_keep_one=True)
    kept = [cache.cache_object("worker", actor) for actor in "abcd"]
    assert kept == [True, True, True, False], "of four that wait three are wanted"
    assert list(cache.flush_cached_objects()) == []
    assert cache.pop_cached_object("worker") == "a"
    wanted = 1
    assert list(cache.flush_cached_objects()) == ["b"], "one is wanted no more"
    assert list(cache.flush_cached_objects(force_all=True)) == ["c"]
    assert cache.num_cached_objects == 0
    usual = tune_controller._ObjectCache(may_keep_one=True)
    assert [usual.cache_object("worker", actor) for actor in "ab"] == [True, False]
