from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from search.config import StudyConfig, read_config, write_config
from search.sections import GoalConfig, TaskConfig
from tasks.errors import InputError

GOOD = {
    "model": {"path": "./model"},
    "task": {"name": "sst2", "data": "./dev.tsv"},
    "space": {"layers": "all", "matrices": ["fc_in"], "rho": [0.9, 0.1], "max_interventions": 2},
}


def several(*changes: dict[str, object]) -> dict[str, object]:
    return {"task": None, "tasks": [{"name": "fever", **change} for change in changes]}


def write(folder: Path, change: dict[str, object]) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    return path


def test_a_frozen_configuration_reads_back_the_same(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").touch()
    config = read_config(write(tmp_path, {"search": {"trials": 7}}))
    frozen = tmp_path / "elsewhere"
    frozen.mkdir()
    write_config(config, frozen / "study.yaml")
    assert read_config(frozen / "study.yaml") == config
    assert config.task.data == str(tmp_path / "dev.tsv")


def test_hub_ids_are_left_alone(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, {"model": {"path": "EleutherAI/gpt-j-6b"}}))
    assert config.model.path == "EleutherAI/gpt-j-6b"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": {}}, ["'modle'", "unknown", "did you mean 'model'"]),
        ({"search": {"trails": 5}}, ["'search.trails'", "did you mean 'trials'"]),
        ({"search": {"trials": "many"}}, ["search.trials", "'many'", "integer"]),
        ({"search": {"trials": True}}, ["search.trials", "True", "number"]),
        ({"search": {"trials": 0}}, ["search.trials", "0", "greater than or equal to 1"]),
        ({"space": {"rho": [1.5]}}, ["space.rho", "1.5", "less than or equal to 1"]),
        ({"space": {"rho": {"low": 0.5, "high": 0.1}}}, ["low 0.5 must be below high 0.1"]),
        ({"space": {"matrices": []}}, ["space.matrices", "at least 1"]),
        ({"search": {"pruner": "medain"}}, ["search.pruner", "did you mean 'median'"]),
        ({"search": {"pruner": "median"}}, ["chunks"]),
        ({"storage": "studies.db"}, ["'studies.db'", "postgresql://"]),
        ({"model": {"path": "x", "head": "clasifier"}}, ["did you mean 'classifier'"]),
        ({"split": {"validation": 1.0}}, ["split.validation", "less than 1"]),
        ({"space": {"layers": 5}}, ["space.layers is 5", "'all' or a valid list"]),
        ({"cluster": {"max_concurrent": "x"}}, ["'auto' or a valid integer"]),
        ({"task": {}}, ["'task.name'", "missing"]),
        ({"tasks": [{"name": "fever"}]}, ["task:", "for several tasks, with tasks:"]),
        ({"task": None}, ["task:", "for several tasks, with tasks:"]),
        ({"task": None, "tasks": []}, ["tasks", "at least 1"]),
        (several({"wieght": 2}), ["'tasks.0.wieght'", "did you mean 'weight'"]),
        (several({"weight": -1}), ["tasks.0.weight", "-1", "greater than or equal to 0"]),
        (several({"weight": 0}, {"label": "b", "weight": 0}), ["weight 0"]),
        (several({}, {}), ["'fever' twice", "label"]),
        (several({"label": "a/b"}), ["tasks.0.label", "'a/b'"]),
        (several({"floor": {}}), ["tasks.0.floor", "worse_by, limit or both"]),
        (several({"floor": {"worse": 1}}), ["'tasks.0.floor.worse'", "did you mean 'worse_by'"]),
        (several({"floor": {"worse_by": -0.1}}), ["tasks.0.floor.worse_by", "-0.1"]),
        ({"objective": "relative"}, ["'relative'", "several tasks"]),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, change, words) -> None:
    path = write(tmp_path, change)
    with pytest.raises(InputError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message, message


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "absent.yaml")
    path = tmp_path / "study.yaml"
    path.write_text("model: [")
    with pytest.raises(InputError, match="not valid YAML"):
        read_config(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="not valid YAML"):
        read_config(path)


def test_every_key_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()

    def keys(model: type[BaseModel], start: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            annotation = next(
                (a for a in (field.annotation, *get_args(field.annotation)) if is_model(a)), None
            )
            if annotation is None:
                yield start + name
            else:
                yield from keys(annotation, f"{start}{name}.")

    def is_model(annotation: object) -> bool:
        return isinstance(annotation, type) and issubclass(annotation, BaseModel)

    own = [f"tasks.{key}" for key in keys(GoalConfig) if key not in TaskConfig.model_fields]
    for key in [*keys(StudyConfig), *own]:
        assert f"`{key}`" in page or key.startswith("space.rho."), key


def test_a_folder_in_place_of_the_file_is_said_with_what_to_give(tmp_path):
    with pytest.raises(InputError) as caught:
        read_config(tmp_path)
    assert "is a folder; give the path of a study.yaml" in str(caught.value)
    assert "Errno" not in str(caught.value)
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(InputError, match=r"such as .*mine\.yaml"):
        read_config(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match="which laser-search resume"):
        read_config(tmp_path)
