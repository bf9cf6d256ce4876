import logging

import pytest

from tasks.base import Choose, Chosen, Complete, Completed, Generate, Generated
from tasks.bigbench import BigBench
from tasks.errors import InputError

HARD = {
    "canary": "BENCHMARK DATA ...",
    "examples": [
        {"input": "Did Ann cause it?\nOptions:\n- Yes\n- No", "target": "Yes"},
        {"input": "Did Bo cause it?\nOptions:\n- Yes\n- No", "target": "No"},
    ],
}


def test_options_in_the_input_are_the_choices(write):
    first, second = BigBench().load(write("causal_judgement.json", HARD))
    assert first.prompt == "Did Ann cause it?\nOptions:\n- Yes\n- No"
    assert (first.choices, first.label, second.label) == (("Yes", "No"), 0, 1)


def test_lettered_options(write):
    rows = [{"input": "Which?\nOptions:\n(A) a cat\n(B) a dog", "target": "(B)"}] * 2
    example = BigBench().load(write("bbh.json", {"examples": rows}))[0]
    assert (example.choices, example.label) == (("(A)", "(B)"), 1)


def test_target_scores_and_the_files_prefixes(write):
    file = {
        "name": "riddle",
        "task_prefix": "Solve. ",
        "example_input_prefix": "Q: ",
        "example_output_prefix": "\nA:",
        "examples": [{"input": "a or b", "target_scores": {"a": 0, "b": 1}}] * 2,
    }
    first, second = BigBench().load(write("task.json", file))
    assert first.prompt == "Solve. Q: a or b\nA:"
    assert (first.choices, first.label) == (("a", "b"), 1)
    assert first.id != second.id
    assert BigBench().request(first, "causal") == Choose("Solve. Q: a or b\nA:", (" a", " b"))


def test_few_targets_of_a_file_are_its_choices(write):
    rows = [{"input": f"q{n}", "target": "True" if n % 2 else "False"} for n in range(4)]
    found = BigBench().load(write("bool.json", {"examples": rows}))
    assert {e.choices for e in found} == {("False", "True")}
    assert [e.label for e in found] == [0, 1, 0, 1]


def test_many_targets_are_open_answers(write, caplog):
    rows = [{"inputs": f"capital {n} is", "targets": [f"t{n}"]} for n in range(3)]
    rows.append({"inputs": "many", "targets": ["a", "b"]})
    task = BigBench("qa-wikidata")
    with caplog.at_level(logging.WARNING):
        found = task.load(write("qa.jsonl", rows))
    assert [e.answer for e in found] == ["t0", "t1", "t2"]
    assert "1 rows with several right answers" in caplog.text
    assert task.request(found[0], "masked") == Complete("capital 0 is [MASK].", " t0")
    asked = Generate("capital 0 is", 10, " t0", enough=("t0",))
    assert task.request(found[0], "causal") == asked
    scores = [
        task.outcome(found[0], Generated(text, 3, -2.0, 1)).score for text in (" t01", " T0, so")
    ]
    assert scores == [0.0, 1.0]


def test_a_named_task_knows_its_choices(write):
    rows = [
        {
            "inputs": "Premise: Ann knows.\nRelation:",
            "targets": ["entailment"],
            "multiple_choice_targets": ["non-entailment", "entailment"],
            "multiple_choice_scores": [0, 1],
        }
    ]
    task = BigBench("epistemic-reasoning")
    (example,) = task.load(write("epistemic.jsonl", rows))
    assert (example.choices, example.label) == (("entailment", "non-entailment"), 0)
    outcome = task.outcome(example, Chosen((-1.0, -2.0), (2, 4)))
    assert (outcome.score, outcome.tokens) == (1.0, 2)
    open_reply = BigBench("qa-wikidata").outcome(example, Completed(-1.0, True, 0, " x"))
    assert open_reply.score == 1.0


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("web-of-lies", {"input": "x", "target": "Maybe"}, ["item 1", "'Maybe'", "Yes, No"]),
        (None, {"input": "x"}, ["'target' is missing"]),
        (None, {"target": "x"}, ["'input' is missing"]),
        (None, {"input": "x", "target_scores": [1]}, ["'target_scores' must map"]),
        (None, {"input": "x", "target": ["a", "b"]}, ["no example with exactly one"]),
    ],
)
def test_bad_rows(write, name, row, words):
    with pytest.raises(InputError) as error:
        BigBench(name).load(write("b.json", {"examples": [row]}))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_any_file_needs_one():
    with pytest.raises(InputError, match="bigbench:causal-judgment"):
        BigBench().load()


def test_spaces_around_an_input_are_no_part_of_it(write):
    rows = [{"inputs": " Did he? ", "targets": ["Yes"]}, {"inputs": "She\n", "targets": ["No"]}]
    examples = BigBench("causal-judgment").load(write("b.jsonl", rows))
    assert [example.prompt for example in examples] == ["Did he?", "She"]
