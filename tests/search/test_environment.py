"""Keys of study.yaml that environment variables stand for."""

import pytest
import yaml
from typer.main import get_command

from cluster.cli import app
from search.config import read_config
from tasks.errors import InputError

SECRET = "postgresql://me:hush@db/studies"


@pytest.fixture
def study(tmp_path):
    def write(**keys):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"model": {"path": "m"}, "task": {"name": "sst2"}, **keys}))
        return path

    return write


def test_a_variable_stands_for_a_missing_key(study, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    variables = {"LASER_SEARCH_FACTORS": "shared", "LASER_SEARCH_STORAGE": SECRET}
    config = read_config(study(), (), variables)
    assert config.factors == str(tmp_path / "here" / "shared"), "of the shell, not of the file"
    assert config.storage == SECRET
    url = read_config(study(), (), {"LASER_SEARCH_FACTORS": "s3://bucket/f"})
    assert (url.factors, url.storage) == ("s3://bucket/f", None)


def test_a_key_or_a_flag_wins(study, tmp_path):
    variables = {"LASER_SEARCH_FACTORS": "/shared", "LASER_SEARCH_STORAGE": SECRET}
    config = read_config(study(factors="/mine", storage=None), (), variables)
    assert (config.factors, config.storage) == ("/mine", None)
    assert read_config(study(), ["factors=/flag"], variables).factors == "/flag"


def test_nothing_is_read_from_the_environment_unasked(study, monkeypatch):
    """A frozen study.yaml without a storage keeps its file."""
    monkeypatch.setenv("LASER_SEARCH_STORAGE", SECRET)
    assert read_config(study()).storage is None


def test_a_wrong_value_names_the_variable_and_hides_what_is_secret(study):
    with pytest.raises(InputError) as caught:
        read_config(study(), (), {"LASER_SEARCH_STORAGE": "me:hush@db"})
    assert "LASER_SEARCH_STORAGE" in str(caught.value) and "hush" not in str(caught.value)


def test_the_commands_that_take_factors_take_the_variable():
    commands = get_command(app).commands
    for name in ("evaluate", "decompose"):
        option = next(p for p in commands[name].params if p.name == "factors")
        assert option.envvar == "LASER_SEARCH_FACTORS", name
