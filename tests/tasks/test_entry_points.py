"""Tasks that an installed package brings: a distribution in a folder on the path."""

import logging
import sys

import pytest

from tasks.errors import InputError
from tasks.registry import all_tasks, describe, get_task

SOURCE = '''
class Riddles:
    """Riddles of one line."""

    name = "riddles"
    metric = "accuracy"
    heads = frozenset({"causal"})

    def load(self, source, revision=None): ...
    def request(self, example, head): ...
    def outcome(self, example, reply): ...


class Half:
    name = "half"


class Fever(Riddles):
    name = "fever"
'''
POINTS = """[laser_search.tasks]
riddles = riddle_tasks:Riddles
half = riddle_tasks:Half
gone = no_such_module:Task
fever = riddle_tasks:Fever
other = riddle_tasks:Riddles
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    (tmp_path / "riddle_tasks.py").write_text(SOURCE)
    info = tmp_path / "riddles-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: riddles\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("riddle_tasks", None)


def test_an_installed_task_is_found_by_name_and_listed(caplog):
    task = get_task("riddles")
    assert type(task).__name__ == "Riddles"
    assert describe(task) == "Riddles of one line."
    with caplog.at_level(logging.WARNING):
        names = [task.name for task in all_tasks()]
    assert "riddles" in names
    assert names == sorted(names)
    assert "half" not in names
    assert "'gone' of no_such_module:Task" in caplog.text


def test_a_built_in_name_stays_what_it_is():
    assert type(get_task("fever")).__module__ == "tasks.fever"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "'half' of riddle_tasks:Half lacks metric, heads, load, request, outcome"),
        ("gone", "'gone' of no_such_module:Task cannot be loaded: ModuleNotFoundError"),
        ("other", "'other' of riddle_tasks:Riddles calls itself 'riddles'"),
        ("ridles", "did you mean 'riddles'"),
    ],
)
def test_one_that_cannot_be_used_is_named(name, words):
    with pytest.raises(InputError) as error:
        get_task(name)
    assert words in str(error.value)
