"""What a worker builds, and what stays of it where that fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.worker import Blueprint
from search.demo.study import demo_config
from search.sections import ReuseConfig
from search.study.objective import Goal, Objective
from tasks.errors import InputError


def test_a_bench_that_cannot_be_built_leaves_no_folder_of_activations(tmp_path: Path) -> None:
    config = demo_config(tmp_path, trials=2)
    model = shutil.copytree(str(config.model.path), tmp_path / "model")
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"path": str(model)}),
            "reuse": ReuseConfig(file_gib=1, folder=str(tmp_path)),
        }
    )
    objective = Objective((Goal("", "accuracy"),))
    blueprint = Blueprint(config, str(tmp_path), "study", (), (), objective, 1, "cpu")
    room = blueprint.room()
    assert room.folder is not None and room.folder.exists(), "the case is one with a folder"
    room.close()
    (model / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="model"):
        blueprint.build()
    assert not room.folder.exists(), "its lock was to be given up, and nobody else has one"
