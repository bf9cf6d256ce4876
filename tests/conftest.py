"""The program as a user runs it, in this process."""

import sys

import pytest

from cluster.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `laser-search` with these words: exit code, what it printed, what it complained of."""

    def go(*words):
        monkeypatch.setattr(sys, "argv", ["laser-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return go
