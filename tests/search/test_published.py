"""What a published page may call the files of the machine that made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.published import data_name, hub_name, model_name, without_paths


@pytest.fixture
def saved(tmp_path: Path):
    """A model's folder whose configuration says that it was loaded as `said`."""

    def save(said: object, name: str = "my-model") -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_name_or_path": said}))
        return str(folder)

    return save


def test_a_model_of_the_hub_is_called_by_its_id() -> None:
    assert model_name("openai-community/gpt2") == "openai-community/gpt2"
    assert hub_name("openai-community/gpt2") == "openai-community/gpt2"
    assert model_name("gpt2") == hub_name("gpt2") == "gpt2"


def test_a_folder_is_called_as_its_configuration_says(saved) -> None:
    folder = saved("openai-community/gpt2")
    assert model_name(folder) == hub_name(folder) == "openai-community/gpt2"


@pytest.mark.parametrize(
    "said", ["/home/ann/secret", "./out", "~/x", "out", "a/b/c", "runs/checkpoint-500", "", 3, None]
)
def test_a_path_in_the_configuration_is_no_name(saved, said) -> None:
    folder = saved(said)
    assert model_name(folder) == "my-model"
    assert hub_name(folder) is None


def test_a_folder_that_is_gone_or_broken_is_called_by_its_own_name(tmp_path: Path) -> None:
    assert model_name(str(tmp_path / "gone")) == "gone"
    (tmp_path / "config.json").write_text("[1]")
    assert model_name(str(tmp_path)) == tmp_path.name
    (tmp_path / "config.json").write_text("{")
    assert model_name(f"{tmp_path}/") == tmp_path.name
    assert model_name("/") == "model"


def test_a_snapshot_in_the_hubs_cache_is_called_by_its_id(saved) -> None:
    folder = saved(
        None, "hub/models--EleutherAI--gpt-j-6b/snapshots/47e169305d2e8376be1d31e765533382"
    )
    assert model_name(folder) == hub_name(folder) == "EleutherAI/gpt-j-6b"


def test_data_are_called_by_their_file_or_id(tmp_path: Path) -> None:
    assert data_name("/home/ann/q.jsonl") == "q.jsonl"
    assert data_name("./q.jsonl") == "q.jsonl"
    assert data_name("nyu-mll/glue:sst2") == "nyu-mll/glue:sst2"
    assert data_name("s3://bucket/prefix") == "s3://bucket/prefix"
    assert data_name(None) is None


def test_paths_inside_a_text_are_named_the_longest_first() -> None:
    said = "/a/b/c.json and /a/b hold x/a/b; /a/bc and /a/b/ not; file:///a/b"
    assert without_paths(said, ["/a/b", "/a/b/c.json"]) == (
        "c.json and b hold x/a/b; /a/bc and b/ not; file://b"
    )
    assert without_paths("nothing", []) == "nothing"
