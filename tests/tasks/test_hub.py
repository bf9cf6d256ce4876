"""The hub route against a stand-in for the `datasets` library."""

import sys
import types

import pytest

from tasks.datasets import load_rows
from tasks.errors import InputError


@pytest.fixture
def hub(monkeypatch):
    calls = []
    module = types.ModuleType("datasets")

    def load_dataset(name, config, *, revision, split, **files):
        calls.append((name, config, revision, split, *files.values()))
        if name == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist\nlong trace")
        return [{"sentence": "fine", "label": 1}]

    module.load_dataset = load_dataset
    module.get_dataset_split_names = lambda name, config, revision: ["train", "test"]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_an_id_names_configuration_and_split(hub):
    rows = load_rows("org/set:conf:train", "abc")
    assert rows == [{"sentence": "fine", "label": 1}]
    assert rows[0].where == "org/set train row 1"
    load_rows("org/set:conf:train+test")
    load_rows("org/set")
    assert hub == [
        ("org/set", "conf", "abc", "train"),
        ("org/set", "conf", None, "train+test"),
        ("org/set", None, None, "test"),
    ]


def test_a_slice_of_one_file_fetches_no_other(hub):
    load_rows("org/set:en/part-0.json.gz:validation[:100]", "abc")
    load_rows("org/set:conf:train[:7]+test[2:]")
    files = {"validation": "en/part-0.json.gz"}
    assert hub == [
        ("org/set", None, "abc", "validation[:100]", files),
        ("org/set", "conf", None, "train[:7]+test[2:]"),
    ]


def test_a_failed_load_is_one_sentence(hub):
    with pytest.raises(InputError) as error:
        load_rows("no/such", "r1")
    text = str(error.value)
    assert "'no/such' at revision r1" in text
    assert "doesn't exist" in text
    assert "long trace" not in text
