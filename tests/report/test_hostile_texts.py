"""`compare` quotes questions and answers, which may hold escape sequences and markup."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\x7f\u2028\r\n[/red][bold]:warning:[link=http://e.example]x"


@pytest.fixture(scope="module")
def evil_study(tmp_path_factory, make_study):
    return make_study(tmp_path_factory.mktemp("evil") / "study", trials=12, text=EVIL).folder


def harmless(text: str) -> bool:
    return all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Zl") for c in text)


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("words", [(), ("--by", "kind"), ("--json",), ("--by", "no\x1b[2Jne")])
def test_compare_shows_texts_and_obeys_none(evil_study, run, monkeypatch, terminal, words) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, said = run("compare", evil_study, "--trial", "3", *words)
    assert code == (2 if "no\x1b[2Jne" in words else 0), said
    own = re.sub(r"\x1b\[[0-9;]*m", "", out)  # rich's colours
    assert terminal or own == out
    assert harmless(own), ascii(own)
    assert harmless(said)
    if "--json" in words:
        found = json.loads(out)
        assert EVIL in [*found["fixed"], *found["broken"]][0]["prompt"]
    elif code == 0:
        assert "[/red][bold]:warning:[link=http://e.example]x" in own, "markup is text, too"
        assert not any(line.strip().startswith("[/red]") for line in own.splitlines()), (
            "no text begins a line of its own"
        )
