import pytest

from tasks.base import Complete, Completed, Generate, Generated
from tasks.errors import InputError
from tasks.hotpotqa import HotpotQA

TASK = HotpotQA()
ROW = {
    "id": "5a8b57f25542995d1e6f1371",
    "question": "Were Scott Derrickson and Ed Wood of the same nationality?",
    "answer": "yes",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": {"title": ["Scott Derrickson", "Ed Wood"], "sent_id": [0, 0]},
    "context": {"title": ["Ed Wood"], "sentences": [["Edward Davis Wood Jr. was an American."]]},
}
OTHER = {
    "_id": "5a8c7595554299585d9e36b6",
    "question": "What government position was held by the woman who portrayed Corliss Archer ",
    "answer": "Chief of Protocol",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Kiss and Tell (1945 film)", 0]],
    "context": [["Shirley Temple", ["Shirley Temple Black was an American actress."]]],
}
LONG = {**ROW, "id": "x", "answer": "one two three four five six seven eight nine ten eleven"}


def test_the_hubs_and_the_authors_schema(write):
    first, second = TASK.load(write("hotpot.json", [ROW, OTHER, LONG]))
    assert first.id == ROW["id"]
    assert first.prompt == ROW["question"] + " The answer is"
    assert first.columns == {"type": "comparison", "level": "hard"}
    assert second.id == OTHER["_id"]
    assert second.prompt.endswith("Corliss Archer? The answer is")
    assert (first.answer, second.answer) == ("yes", "Chief of Protocol")
    assert first.group != second.group


def test_requests_for_each_head(write):
    example = TASK.load(write("hotpot.json", [ROW, OTHER]))[1]
    expected = Generate(example.prompt, 15, " Chief of Protocol")
    assert TASK.request(example, "causal") == TASK.request(example, "seq2seq") == expected
    asked = TASK.request(example, "masked")
    assert asked == Complete(f"{example.prompt} [MASK].", " Chief of Protocol")


def test_the_answer_counts_in_the_generated_text_alone(write):
    example = TASK.load(write("hotpot.json", [ROW, OTHER]))[1]
    reply = Generated(" the Chief of Protocol.\nWhat", 9, -4.5, 3)
    outcome = TASK.outcome(example, reply)
    assert (outcome.score, outcome.log_probability, outcome.tokens) == (1.0, -4.5, 3)
    assert outcome.prediction == "the Chief of Protocol.\nWhat"
    assert outcome.measures == {"f1": pytest.approx(6 / 7), "exact": 0.0}
    wrong = TASK.outcome(example, Generated(" no", 2, -4.5, 3))
    assert (wrong.score, wrong.measures) == (0.0, {"f1": 0.0, "exact": 0.0})
    filled = TASK.outcome(example, Completed(-2.0, True, 0, " Chief of Protocol", 3))
    assert (filled.score, filled.log_probability) == (1.0, -2.0)


def test_bad_rows(write):
    with pytest.raises(InputError, match=r"h\.json item 1: field 'answer' is missing"):
        TASK.load(write("h.json", [{"id": "1", "question": "who"}]))
