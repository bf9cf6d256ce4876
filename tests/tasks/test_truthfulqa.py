import pytest

from tasks.base import Choose, Chosen
from tasks.errors import InputError
from tasks.truthfulqa import TruthfulQA

TASK = TruthfulQA()
CSV = (
    "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    'Adversarial,Law,May a cat vote?,No,"No; Cats cannot vote.; No, never","Yes; In Rome; ",url\n'
)
HUB = {
    "question": "May a cat vote?",
    "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
    "mc2_targets": {
        "choices": ["No", "Cats cannot vote.", "No, never", "Yes", "In Rome"],
        "labels": [1, 1, 1, 0, 0],
    },
}
REPOSITORY = {
    "question": "May a cat vote?",
    "mc2_targets": {
        **{"No": 1, "Cats cannot vote.": 1, "No, never": 1},
        **{"Yes": 0, "In Rome": 0},
    },
}


def test_three_formats_hold_the_same_statements(write):
    files = [
        write("TruthfulQA.csv", CSV),
        write("hub.jsonl", [HUB]),
        write("mc_task.json", [REPOSITORY]),
    ]
    found = [TASK.load(file) for file in files]
    assert {(e.prompt, e.answer) for e in found[0]} == {
        ("May a cat vote? No.", "true"),
        ("May a cat vote? Cats cannot vote.", "true"),
        ("May a cat vote? No, never.", "true"),
        ("May a cat vote? Yes.", "false"),
        ("May a cat vote? In Rome.", "false"),
    }
    assert {e.id for e in found[0]} == {e.id for e in found[1]} == {e.id for e in found[2]}
    assert len({e.group for examples in found for e in examples}) == 1
    assert found[0][0].columns == {"category": "Law", "type": "Adversarial"}


def test_request_and_score(write):
    example = next(e for e in TASK.load(write("h.jsonl", [HUB])) if e.answer == "true")
    prompt = f"{example.prompt} Is this statement true or false? This statement is"
    assert TASK.request(example, "causal") == Choose(prompt, (" false", " true"))
    assert TASK.request(example, "masked") == Choose(f"{prompt} [MASK].", (" false", " true"))
    assert TASK.outcome(example, Chosen((-2.0, -1.0), (1, 1))).score == 1.0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q", "mc2_targets": {"choices": ["a"], "labels": []}}, ["mc2_targets"]),
        ({"question": "q", "mc2_targets": {"choices": ["a"], "labels": [2]}}, ["0 or 1"]),
        ({"question": "q", "mc2_targets": "a"}, ["mc2_targets"]),
        ({"mc2_targets": {"a": 1}}, ["'question' is missing"]),
        ({"question": "q", "Best Answer": "a"}, ["'Correct Answers' is missing"]),
    ],
)
def test_bad_rows(write, row, words):
    with pytest.raises(InputError) as error:
        TASK.load(write("b.jsonl", [row]))
    assert all(word in str(error.value) for word in ["b.jsonl line 1", *words]), str(error.value)
