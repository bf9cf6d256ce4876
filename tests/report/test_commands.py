"""Every command says how it is used, and to a script what it found."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from cluster.cli import app

SHOWS_A_PAGE = {("dashboard",), ("schema",)}
"""Commands that show a page, or print JSON always."""


def _walk(command, path=()):
    for name, found in command.commands.items():
        if hasattr(found, "commands"):
            yield from _walk(found, (*path, name))
        else:
            yield (*path, name), found


COMMANDS = dict(_walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_the_command_understands(path):
    run = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert run.exit_code == 0
    _, found, example = " ".join(run.output.split()).partition(
        f"Example: laser-search {' '.join(path)}"
    )
    assert found, run.output
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}
    used = {word for word in example.partition("╭")[0].split() if word.startswith("--")}
    assert used <= options


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - SHOWS_A_PAGE), ids=" ".join)
def test_a_script_can_read_the_answer(path):
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)


def test_caches_answer_scripts(tmp_path):
    import torch

    from search.weights.factors import FactorCache

    with FactorCache(tmp_path / "f") as cache:
        weight = torch.eye(3)
        cache.ensure(weight, cache.key(weight), "m:0.fc_in")
    (tmp_path / "f" / "ab").mkdir(exist_ok=True)
    damaged = tmp_path / "f" / "ab" / "x.safetensors.damaged"
    damaged.write_text("x")

    def ask(*words):
        run = CliRunner().invoke(app, ["factors", *words, str(tmp_path / "f"), "--json"])
        assert run.exit_code == 0, run.output
        return json.loads(run.output)

    assert ask("verify") == {"whole": 1, "damaged": []}
    assert ask("rebuild") == {"matrices": 1}
    assert ask("gc")["removed"] is False and damaged.exists()
    assert [row["bytes"] for row in ask("gc", "--yes")["files"]] == [1] and not damaged.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(shell):
    words = {
        "_LASER_SEARCH_COMPLETE": f"complete_{shell}", "COMP_WORDS": "laser-search re",
        "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "laser-search re",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    code = "from cluster.cli import app; app(prog_name='laser-search')"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert "report" in run.stdout and "resume" in run.stdout, run.stderr
    assert "launch" not in run.stdout
