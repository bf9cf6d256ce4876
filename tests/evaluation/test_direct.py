"""`evaluate` on the demo's model: patterns and LASER's own options."""

import json
import sys
from pathlib import Path

import pytest

import search.demo
from cluster.cli import main
from search.standalone import StandaloneResult
from tasks.base import Example, Outcome
from tasks.scoring import summarise

HERE = Path(search.demo.__file__).parent


@pytest.fixture
def evaluate(monkeypatch, capsys, tmp_path):
    questions = tmp_path / "questions.jsonl"
    lines = (HERE / "questions.jsonl").read_text().splitlines(keepends=True)
    questions.write_text("".join(lines[:24]))
    command = ["laser-search", "evaluate", str(HERE / "model"), "--task", "jsonl", "--json"]
    command += ["--data", str(questions), "--factors", str(tmp_path / "factors")]

    def run(*words):
        monkeypatch.setattr(sys, "argv", [*command, *words])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        if end.value.code:
            return printed.err
        return json.loads(printed.out)["scores"]

    return run


def test_a_triple_and_its_pattern_are_one_composition(evaluate):
    by_triple = evaluate("--lname", "mlp", "--lnum", "-1", "--rate", "9")
    by_pattern = evaluate("--intervention", "*.mlp=rank:6")
    assert list(by_triple) == list(by_pattern)
    assert by_triple == by_pattern
    composition = list(by_triple)[1]
    assert len(composition.split()) == 6
    assert composition.startswith("0.fc_in=rank:6 0.fc_out=rank:6 1.fc_in=rank:6")
    scores = list(by_triple.values())
    assert scores[0] != scores[1]


def test_spectral_rules_and_groups(evaluate):
    scores = evaluate("--intervention", "1.attn=energy:0.5", "--intervention", "2.fc_in=zero")
    assert list(scores)[1].split()[0] == "1.q_proj=energy:0.5"
    assert len(list(scores)[1].split()) == 5


def test_nothing_is_the_baseline(evaluate):
    assert list(evaluate("--lname", "dont", "--lnum", "0", "--rate", "9")) == ["baseline"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--lname", "mlp", "--rate", "9"), "--lnum is missing"),
        (("--lname", "mlpp", "--lnum", "1", "--rate", "9"), "did you mean 'mlp'"),
        (("--lname", "mlp", "--lnum", "7", "--rate", "9"), "'7.mlp' matches no matrix"),
        (
            ("--lname", "mlp", "--lnum", "1", "--rate", "9", "--intervention", "1.fc_in=0.1"),
            "both define interventions",
        ),
        (("--intervention", "*.mlp=0.1", "--intervention", "1.fc_in=0.2"), "cut twice"),
        (("--intervention", "*.mlp=much"), "'*.mlp=much'"),
        (("--intervention", "*.mlp"), "expected MATRIX=RHO"),
        (("--intervention", "*.mlq=0.1"), "'*.mlq' matches no matrix"),
    ],
)
def test_bad_input_is_one_sentence(evaluate, words, expected):
    message = evaluate(*words)
    assert expected in message and message.count("\n") == 1


def test_the_dtype_and_the_chat_template_reach_the_model(evaluate):
    whole, half = (evaluate("--dtype", name)["baseline"] for name in ("float32", "bfloat16"))
    assert half["log_loss"] != whole["log_loss"]
    assert half["log_loss"] == pytest.approx(whole["log_loss"], abs=0.05)
    refused = evaluate("--chat-template")
    assert "chat" in refused
    assert refused.count("\n") == 1


def test_a_warning_names_the_part_that_was_asked(capsys):
    examples = [Example(f"e{n}", f"g{n}", "q", "a") for n in range(30)]
    outcomes = [Outcome(e.id, e.group, 0.0, -1.0, "same") for e in examples]
    scores = {"baseline": summarise(outcomes, examples)}
    for part, words in (("validation", "the validation questions"), ("all", "of the questions")):
        StandaloneResult("accuracy", part, scores, None).print()
        said = " ".join(capsys.readouterr().out.split())
        assert words in said
        assert "test questions" not in said
