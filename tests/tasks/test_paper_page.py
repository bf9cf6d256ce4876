"""docs/paper.md: every line is held by a test that there is, and says what the code does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"


def lines():
    """The rows of the page's tables, cell by cell."""
    if not PAGE.is_file():
        pytest.skip("documents are not shipped with the wheel")
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [row for row in cells if row[0] != "what"]


def held():
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append(path.name)
    return found


def test_every_line_names_a_test_that_there_is():
    known = held()
    rows = lines()
    assert len(rows) >= 25
    for row in rows:
        assert len(row) == 6, row
        assert all(row), row
        (name,) = re.findall(r"`(test_\w+)`", row[-1])
        assert name in known, name


def test_every_option_that_the_page_names_is_there():
    from typer.main import get_command

    from cluster.cli import app
    from search.config import StudyConfig
    from search.cuts.kinds.registry import KINDS
    from search.sections import TaskConfig
    from search.strategies.registry import STRATEGIES
    from tasks.splits import Protocol

    text = PAGE.read_text(encoding="utf-8")
    commands = [get_command(app).commands[name] for name in ("evaluate", "init", "cut")]
    options = {option for one in commands for p in one.params for option in p.opts}
    named = set(re.findall(r"--[a-z]+", " ".join(re.findall(r"`([^`]*)`", text)))) - {"--list"}
    assert named <= options, named - options
    assert {"svd-lowrank", "prune-paper"} <= set(KINDS)
    assert "svd-lowrank" in str(StudyConfig.model_fields["products"].annotation)
    assert "paper" in str(TaskConfig.model_fields["scoring"].annotation)
    assert "paper" in str(Protocol)
    assert {"greedy", "snr"} <= set(STRATEGIES)
