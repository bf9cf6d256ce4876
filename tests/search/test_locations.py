"""Paths that another process will use are absolute before they reach it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.decompose import check_built
from search.config import read_config
from search.locations import absolute_location
from search.weights.factors import FactorCache
from tasks.errors import InputError


def test_a_location_is_absolute_or_a_url(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_location("factors") == str(tmp_path / "factors")
    assert absolute_location(Path("a/../b")) == str(tmp_path / "b")
    assert absolute_location("~/f") == str(tmp_path / "home" / "f")
    assert absolute_location("/f") == "/f"
    assert absolute_location("s3://bucket/prefix") == "s3://bucket/prefix"
    assert absolute_location("f", Path("/study")) == "/study/f"


def test_every_path_of_a_study_is_absolute(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "data.tsv").touch()
    study = {
        "model": {"path": "model"},
        "task": {"name": "sst2", "data": "data.tsv"},
        "factors": "factors",
        "search": {"warm_start": ["../other"]},
        "reuse": {"folder": "scratch"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    config = read_config(tmp_path / "study.yaml")
    assert config.task is not None
    assert [
        config.model.path,
        config.task.data,
        config.factors,
        *config.search.warm_start,
        config.reuse.folder,
    ] == [
        str(tmp_path / "model"),
        str(tmp_path / "data.tsv"),
        str(tmp_path / "factors"),
        str(tmp_path.parent / "other"),
        str(tmp_path / "scratch"),
    ]


def test_factors_that_were_written_elsewhere_are_an_error(tmp_path: Path) -> None:
    import torch

    weight = torch.eye(3)
    with FactorCache(tmp_path / "elsewhere") as cache:
        key = cache.key(weight)
        cache.ensure(weight, key, "m:0.fc_in")
    check_built(tmp_path / "elsewhere", {"0.fc_in": key})
    with pytest.raises(InputError, match=r"does not hold the factors of 0\.fc_in"):
        check_built(tmp_path / "here", {"0.fc_in": key})
