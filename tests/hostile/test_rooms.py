"""Places that cannot be written or reached: a sentence with the remedy."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from cluster.ray_room import check_room
from tasks.errors import InputError


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_path_too_long_for_a_socket(variable, monkeypatch, tmp_path):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv(variable, str(long))
    with pytest.raises(InputError, match=r"too long a path.*set RAY_TMPDIR to a short one"):
        check_room()


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    with pytest.raises(InputError, match=r"/nowhere cannot be written .*set RAY_TMPDIR"):
        check_room()


@pytest.mark.parametrize("place", ["/dev/null/tmp", "/proc"], ids=["not a folder", "not writable"])
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_launch_into_an_unwritable_temporary_folder(
    variable, place, monkeypatch, refused, study, tmp_path
):
    """Python finds another for itself, Ray does not: said before it starts, not laid on load."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, place)
    said = refused("launch", study(), "--out", tmp_path / "out")
    assert f"{place} cannot be written" in said and f"set {variable}" in said
    assert "less busy" not in said


def test_a_home_that_cannot_be_written(model):
    words = [sys.executable, "-m", "laser_search", "matrices", str(model)]
    env = {**os.environ, "HOME": "/dev/null/home"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.fc_in" in done.stdout


def test_the_longest_path_that_ray_takes(monkeypatch, tmp_path):
    from ray._common.utils import get_default_ray_temp_dir

    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_room()
    assert get_default_ray_temp_dir() == "/tmp/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 200)
    assert get_default_ray_temp_dir() == "/tmp/" + "x" * 200 + "/ray"


def test_retries_of_the_hub_are_not_told(monkeypatch, caplog, refused, model):
    import datasets

    def fail(*_, **__):
        for _ in range(5):
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that it is not found out before
    monkeypatch.setattr(datasets, "load_dataset", fail)
    said = refused("evaluate", model, "--task", "sst2")
    assert "Couldn't reach the Hub" in said and said.count("\n") == 1
    assert not caplog.messages
