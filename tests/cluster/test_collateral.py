"""A study says what its winner costs on general text, in the numbers of plain transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import search.demo
from search.study.study_record import StudyRecord

MODEL = Path(search.demo.__file__).parent / "model"


def perplexity(folder: Path, texts: list[str]) -> tuple[float, int]:
    """Of `texts`, each by itself, in float64; and the number of predicted tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([start + tokenizer(text, add_special_tokens=False)["input_ids"]])
            found = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            nats -= found.gather(-1, ids[0, 1:, None]).sum().item()
            tokens += ids.shape[1] - 1
    return math.exp(nats / tokens), tokens


def test_a_verdict_has_the_cost_on_the_test_prompts(
    tmp_path: Path, one_process, make_study
) -> None:
    folder, model = tmp_path / "study", tmp_path / "model"
    one_process("launch", make_study(tmp_path, trials=12), "--out", folder, "--quiet")
    result = StudyRecord.read(folder).result
    assert result["trial"] is not None, "the study was chosen so that something wins"
    cost = result["collateral"]
    one_process("export", folder, "--out", model, "--no-verify", "--anyway")
    asked = pq.read_table(folder / "questions.parquet").to_pylist()
    texts = sorted({q["prompt"] for q in asked if q["part"] == "test"})
    before, tokens = perplexity(MODEL, texts)
    after, _ = perplexity(model, texts)
    assert (cost["texts"], cost["tokens"]) == (len(texts), tokens)
    assert cost["baseline"] == pytest.approx(before, rel=1e-5)
    assert cost["winner"] == pytest.approx(after, rel=1e-5)
    assert cost["change"] == pytest.approx(after / before - 1, abs=2e-5)
    assert cost["low"] <= cost["change"] <= cost["high"]
    change = f"{cost['change']:+.1%}"
    for said in (one_process("status", folder).stdout, (model / "README.md").read_text()):
        assert "general text (the prompts of the test questions" in said and change in said.replace(
            "General", "general"
        )
    one_process("report", folder)
    assert change in (folder / "report.html").read_text()
    names = {path.name for path in (folder / "outcomes").iterdir()}
    assert sum("-guard-" in name for name in names) == 2
    found = json.loads(one_process("resume", folder, "--json").stdout)
    assert found["verdict"]["collateral"]["change"] == cost["change"]
    assert {path.name for path in (folder / "outcomes").iterdir()} == names


def test_it_can_be_turned_off(tmp_path: Path, one_process, make_study) -> None:
    folder = tmp_path / "study"
    words = ("--out", folder, "--quiet", "--set", "guard=null")
    one_process("launch", make_study(tmp_path, trials=4), *words)
    assert StudyRecord.read(folder).result["collateral"] is None
    assert not list((folder / "outcomes").glob("*-guard-*"))


def test_other_texts_are_another_comparison(tmp_path: Path, one_process, make_study) -> None:
    folder = tmp_path / "study"
    (tmp_path / "text.txt").write_text("They say that you can visit Neil in London.\n" * 300)
    one_process("launch", make_study(tmp_path, trials=12), "--out", folder, "--quiet")
    first = StudyRecord.read(folder).result["collateral"]
    settings = folder / "study.yaml"
    text = settings.read_text().replace(
        "guard:\n  data: null", f"guard:\n  data: {tmp_path / 'text.txt'}"
    )
    settings.write_text(text)
    one_process("resume", folder, "--quiet")
    second = StudyRecord.read(folder).result["collateral"]
    assert first["source"] != second["source"] == "text.txt"
    assert first["baseline"] != second["baseline"]
