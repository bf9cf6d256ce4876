"""Commands on a study whose record is damaged: a sentence that says what to do."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("command", ["status", "report", "export", "compare"])
@pytest.mark.parametrize("damage", ["zeros", "garbage", "doubled"])
def test_a_damaged_journal_is_one_sentence(
    make_study, run, tmp_path, command: str, damage: str
) -> None:
    record = make_study(tmp_path / "study", limit=6)
    journal = record.folder / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    bad = {"zeros": b"\0" * 400 + b"\n", "garbage": b"{]\n", "doubled": lines[middle]}[damage]
    journal.write_bytes(b"".join([*lines[:middle], bad, *lines[middle:]]))
    words = [command, record.folder, *(["--out", tmp_path / "m"] if command == "export" else [])]
    code, _, err = run(*words)
    assert code == 2, err
    assert err.count("\n") == 1, "one sentence and no traceback"
    assert "study.journal" in err and "laser-search resume" in err
    assert not (tmp_path / "m").exists()
