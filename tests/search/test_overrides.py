"""Values of study.yaml from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from search.config import read_config, with_trials
from tasks.errors import InputError

STUDY = {
    "model": {"path": "gpt2"},
    "tasks": [{"name": "fever"}, {"name": "sst2", "weight": 1.0}],
    "search": {"trials": 7, "seed": 3},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def test_a_value_is_yaml_and_the_rest_of_the_file_stays(path: Path) -> None:
    config = read_config(
        path,
        [
            "search.trials=50",
            "space.rho=[0.1, 0.01]",
            "tasks.1.weight=2",
            "storage=null",
            "search.stop.wall_s=60",
            "search.trials=51",
        ],
    )
    assert config.search.trials == 51, "the later of two values counts"
    assert config.search.seed == 3
    assert config.search.stop.wall_s == 60, "a section that the file leaves out is made"
    assert config.space.rho == [0.1, 0.01]
    assert config.tasks is not None
    assert [goal.weight for goal in config.tasks] == [1.0, 2.0]
    assert yaml.safe_load(path.read_text()) == STUDY, "the user's file is not touched"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search.trials", "KEY=VALUE"),
        ("=5", "KEY=VALUE"),
        ("search..trials=5", "KEY=VALUE"),
        ("space.rho=[0.1", "not valid YAML"),
        ("search.trials.x=5", "search.trials is 7 and has no keys"),
        ("tasks.2.weight=1", "tasks is a list of 2"),
        ("tasks.first.weight=1", "tasks is a list of 2"),
        ("search.trails=5", "did you mean 'trials'"),
        ("search.trials=many", "search.trials is 'many'"),
    ],
)
def test_what_is_wrong_is_one_sentence(path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(path, [text])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_of_a_file_are_told_at_once(path: Path) -> None:
    path.write_text(
        yaml.safe_dump(
            {
                "modle": {"path": "x"},
                "task": {"name": "sst2"},
                "search": {"trials": 0, "pruner": "medain"},
                "space": {"rho": [0.1, 1.5, -1], "layers": 5},
            }
        )
    )
    with pytest.raises(InputError) as caught:
        read_config(path)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path} has 7 mistakes:"
    for word in (
        "key 'modle' is unknown",
        "key 'model' is missing",
        "search.trials is 0",
        "search.pruner is 'medain'",
        "space.rho.1 is 1.5",
        "space.rho.2 is -1",
        "space.layers is 5",
    ):
        assert sum(word in line for line in lines) == 1, f"{word!r} once in:\n{caught.value}"


@pytest.mark.parametrize(("text", "expected"), [("300", 300), ("+100", 107), ("1", 1)])
def test_a_number_of_trials_may_be_relative(path: Path, text: str, expected: int) -> None:
    config = with_trials(read_config(path), text)
    assert config.search.trials == expected
    assert config.search.seed == 3
    assert config.tasks == read_config(path).tasks


@pytest.mark.parametrize("text", ["", "+", "0", "-5", "many", "1.5", "+0", "²", "9" * 5000])
def test_no_number_of_trials(path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"give one such as 300 or \+100"):
        with_trials(read_config(path), text)
