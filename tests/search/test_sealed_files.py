"""No single flipped bit of a study's file is read as other data."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search.study.identity import FILE as IDENTITY_FILE
from search.study.identity import Digests, Identity
from search.study.outcomes import (
    Evaluation,
    outcome_bytes,
    outcome_file,
    parse_outcomes,
    read_outcomes,
    write_outcomes,
)
from search.study.sealed_files import SEALED, DamagedError, read_sealed_json, write_sealed_json
from search.study.verdict import FILE as RESULT_FILE
from search.study.verdict import read_result
from tasks.base import Outcome
from tasks.errors import InputError

ROWS = tuple(Outcome(f"e{i}", f"g{i % 7}", i % 2, -0.25 * i, "yes", tokens=1) for i in range(60))
FOUND = Evaluation("trial-00003", "s", "0.fc_in=0.5", "x", "validation", 0.5, 7.5, {}, ROWS)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "facts"])
def test_no_flipped_bit_of_an_outcome_file_passes(rows) -> None:
    data = outcome_bytes(FOUND)
    assert parse_outcomes(data, "s", "x") == FOUND
    for bit in random.Random(0).sample(range(8 * len(data)), 1500):
        assert parse_outcomes(flipped(data, bit), "s", "x", rows=rows) is None, bit


def test_no_flipped_bit_of_the_digest_or_its_key_makes_an_old_file(rows=True) -> None:
    data = outcome_bytes(FOUND)
    at = 8 * data.rfind(b"laser-digest")
    assert at > 0, "the footer was to hold a digest"
    for bit in range(at, at + 8 * 48):
        assert parse_outcomes(flipped(data, bit), "s", "x") is None, bit


def test_a_file_that_was_cut_or_emptied_is_none() -> None:
    data = outcome_bytes(FOUND)
    for wrong in (b"", data[:-1], data[1:], data + b"\0", data[:100], b"\0" * len(data)):
        assert parse_outcomes(wrong, "s", "x") is None


def test_a_file_of_an_earlier_version_is_read_and_says_that_nobody_vouches_for_it(tmp_path) -> None:
    write_outcomes(tmp_path, FOUND)
    path = outcome_file(tmp_path, FOUND.name)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"laser-search"])
    del facts["format"]
    table = table.replace_schema_metadata({b"laser-search": json.dumps(facts).encode()})
    pq.write_table(table, path, compression="zstd")
    again = read_outcomes(tmp_path, FOUND.name, "s", "x")
    assert again == FOUND
    assert not again.verified
    assert FOUND.verified


def test_a_file_under_another_trial_s_name_is_not_that_trial_s(tmp_path) -> None:
    write_outcomes(tmp_path, FOUND)
    outcome_file(tmp_path, FOUND.name).rename(outcome_file(tmp_path, "trial-00004"))
    assert read_outcomes(tmp_path, "trial-00004", "s", "x") is None


def test_facts_with_a_flipped_bit_are_damaged_and_old_ones_are_read(tmp_path) -> None:
    path = tmp_path / "facts.json"
    write_sealed_json(path, {"score": 0.125, "names": ["a", "é"], "none": None})
    data = path.read_bytes()
    wanted = read_sealed_json(path)
    assert wanted == {"score": 0.125, "names": ["a", "é"], "none": None}
    for bit in range(8 * len(data)):
        path.write_bytes(flipped(data, bit))
        try:
            assert read_sealed_json(path) == wanted, bit  # white space, or a letter's other escape
        except DamagedError:
            continue
    path.write_text('{"score": 0.125}')
    assert read_sealed_json(path) == {"score": 0.125}
    path.write_text(json.dumps({"format": SEALED, "score": 0.125}))
    with pytest.raises(DamagedError):
        read_sealed_json(path)


def test_a_damaged_study_json_is_said(tmp_path) -> None:
    Identity.new(Digests("w", "c", "e", "s", {"search.seed": 1})).write(tmp_path)
    path = tmp_path / IDENTITY_FILE
    assert Identity.read(tmp_path).weights == "w"
    path.write_text(path.read_text().replace('"weights": "w"', '"weights": "v"'))
    with pytest.raises(InputError, match=r"study\.json is damaged.*restore it"):
        Identity.read(tmp_path)


def test_a_damaged_result_is_said_and_resume_writes_it_again(tmp_path) -> None:
    path = tmp_path / RESULT_FILE
    assert read_result(tmp_path) is None
    result = {"trial": 3, "scores": {}, "comparisons": {}}
    path.write_text(json.dumps(result))  # as earlier versions wrote it
    assert read_result(tmp_path) == result
    write_sealed_json(path, result)
    assert read_result(tmp_path) == result
    path.write_text(path.read_text().replace("3", "5"))
    with pytest.raises(InputError, match=r"result\.json is damaged.*laser-search resume"):
        read_result(tmp_path)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(InputError, match=r"result\.json is damaged"):
        read_result(tmp_path)


def test_damaged_questions_are_said(tmp_path) -> None:
    from search.study.questions import FILE, read_questions, write_questions
    from tasks.base import Example
    from tasks.datasets import Split

    asked = tuple(Example(f"e{i}", f"g{i}", f"Question {i} is", answer=str(i)) for i in range(9))
    write_questions(tmp_path, Split(asked[:4], asked[4:]))
    path = tmp_path / FILE
    data = path.read_bytes()
    assert len(read_questions(tmp_path)) == 9
    assert pa.table(pq.read_table(path)).num_rows == 9
    for bit in random.Random(0).sample(range(8 * len(data)), 200):
        path.write_bytes(flipped(data, bit))
        with pytest.raises(InputError, match="damaged"):
            read_questions(tmp_path)
