"""Ray's private names: there in the version that was checked, and borne where they are not."""

from __future__ import annotations

import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster import privates
from cluster.privates import forget_token, known_trainables, own_process_session, stage_in

ROOT = Path(__file__).parents[2]


def test_every_private_name_is_there_in_the_version_that_was_checked() -> None:
    from ray import _raylet
    from ray._private import services
    from ray.train._internal import storage
    from ray.tune import registry

    assert version("ray").startswith(f"{privates.CHECKED}."), (
        "look through cluster/privates.py with this Ray, and note its version there"
    )
    assert issubclass(services.ConsolePopen, subprocess.Popen)
    assert callable(storage._get_ray_train_session_dir)
    assert {"get", "contains"} <= vars(type(registry._global_registry)).keys()
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
        "ray.train._internal.storage._get_ray_train_session_dir",
        "ray.tune.registry._global_registry",
        "ray._raylet.AuthenticationTokenLoader",
    ],
)
def test_a_rename_is_borne(name: str, monkeypatch) -> None:
    monkeypatch.delattr(name)
    with own_process_session(), known_trainables():
        stage_in(str)
        forget_token()


def test_the_next_major_version_is_not_installed_unseen() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {line.split(">=")[0]: line for line in project["dependencies"]}
    assert needed["optuna"].endswith(",<6")
    assert needed["ray[tune]"].endswith(",<3")
    assert needed["transformers"].endswith(",<6")
