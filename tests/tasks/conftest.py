"""Builders of small files, examples and outcomes."""

import json

import pytest

from tasks.base import Example, Outcome


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if not isinstance(content, str):
            if name.endswith(".jsonl"):
                content = "".join(json.dumps(row) + "\n" for row in content)
            else:
                content = json.dumps(content)
        path.write_bytes(content.encode())
        return str(path)

    return write


@pytest.fixture
def example():
    def example(number, group=None, answer="a", label=None, choices=(), **columns):
        group = f"g{number}" if group is None else group
        return Example(f"e{number}", group, f"q{number}", answer, choices, label, columns)

    return example


@pytest.fixture
def outcomes():
    def outcomes(scores, groups=None, predictions=None):
        groups = groups or [f"g{n}" for n in range(len(scores))]
        predictions = predictions or ["x"] * len(scores)
        return [
            Outcome(f"e{n}", group, float(score), -1.0 - n, said)
            for n, (score, group, said) in enumerate(zip(scores, groups, predictions, strict=True))
        ]

    return outcomes
