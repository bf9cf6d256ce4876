"""The JSON schema that editors read agrees with what the program accepts."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from search.config import StudyConfig
from search.report.new_study import Answers, study_text


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(StudyConfig.model_json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_command_prints_it(run) -> None:
    code, out, err = run("schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == StudyConfig.model_json_schema()


def test_what_init_writes_is_valid(validator) -> None:
    validator.validate(yaml.safe_load(study_text(Answers("gpt2"), "study.yaml")))


@pytest.mark.parametrize(
    "change",
    [{"search": {"trails": 5}}, {"search": {"trials": 0}}, {"space": {"rho": [2]}}, {"model": 1}],
)
def test_a_mistake_is_found(validator, change) -> None:
    study = {"model": {"path": "x"}, "task": {"name": "sst2"}, **change}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(study)
