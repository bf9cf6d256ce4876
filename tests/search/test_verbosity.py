"""``-q`` and ``-v`` on every command, and what they let through."""

import logging
import warnings

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cluster.cli import app
from search.verbosity import Program, Verbosity, current, speaking
from tasks.errors import InputError


def _commands(group, name=""):
    for word, command in getattr(group, "commands", {}).items():
        yield from _commands(command, f"{name} {word}")
    if not hasattr(group, "commands"):
        yield name.strip(), command_options(group)


def command_options(command):
    return {option for parameter in command.params for option in parameter.opts}


def test_every_command_takes_both():
    found = dict(_commands(get_command(app)))
    assert {"launch", "heal", "spectra", "factors gc"} <= found.keys()
    for name, options in found.items():
        assert {"-q", "--quiet", "-v", "--verbose"} <= options, name


@pytest.fixture
def program():
    program = Program()

    @program.command()
    def speak(name: str, times: int = 1) -> None:
        """Say it."""
        print(f"{name} x{times} {current().value}")
        logging.getLogger("search.test").debug("a detail")
        heard = logging.getLogger("transformers.test").isEnabledFor(logging.INFO)
        print(f"library {heard}")  # once imported, it writes by a handler of its own
        logging.getLogger("somebody.else").debug("not this")
        logging.getLogger("search.test").warning("a warning")
        warnings.warn("another", UserWarning, stacklevel=1)

    @program.command()
    def other() -> None:
        """Two commands make a group."""

    return program


@pytest.mark.filterwarnings("ignore:another")
def test_verbose_logs_details_and_quiet_no_warning(program):
    run = CliRunner().invoke(program, ["speak", "it", "--times", "2", "-v"])
    assert run.exit_code == 0, run.output
    assert run.stdout == "it x2 verbose\nlibrary True\n"
    assert "DEBUG search.test: a detail" in run.stderr
    assert "not this" not in run.stderr
    run = CliRunner().invoke(program, ["speak", "it", "-q"])
    assert run.stdout == "it x1 quiet\nlibrary False\n"
    assert run.stderr == ""
    run = CliRunner().invoke(program, ["speak", "it"])
    assert run.stdout.startswith("it x1 usual\n") and "a detail" not in run.stderr


def test_both_at_once_are_refused(program):
    run = CliRunner().invoke(program, ["speak", "it", "-q", "-v"])
    assert isinstance(run.exception, InputError) and "--verbose" in str(run.exception)


def test_what_was_set_is_put_back():
    root, own = logging.getLogger(), logging.getLogger("search")
    before = (list(root.handlers), own.level, root.manager.disable)
    for one in Verbosity:
        with speaking(one):
            assert current() is one
    assert (list(root.handlers), own.level, root.manager.disable) == before
    assert current() is Verbosity.USUAL
