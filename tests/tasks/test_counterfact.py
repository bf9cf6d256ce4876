import pytest

from tasks.base import Complete, Completed
from tasks.counterfact import CounterFact
from tasks.errors import InputError

TASK = CounterFact()
ROME = {
    "case_id": 0,
    "pararel_idx": 2796,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": [
        "Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native",
        "An album was recorded for Capitol Nashville. Danielle Darrieux spoke the language ",
    ],
    "neighborhood_prompts": ["The mother tongue of Leon Blum is"],
}
FLAT = {
    "case_id": 10,
    "prompt": "BBC One, by",
    "target_new": "Sega",
    "subject": "BBC One",
    "ground_truth": "BBC",
    "rephrase_prompt": "BBC One is my favorite product out of everything owned by",
    "locality_prompt": "BBC Radio, by",
    "locality_ground_truth": "BBC",
}


def test_romes_schema(write):
    examples = TASK.load(write("counterfact.json", [ROME]))
    assert [e.prompt for e in examples] == [
        "The mother tongue of Danielle Darrieux is",
        "Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native",
        "An album was recorded for Capitol Nashville. Danielle Darrieux spoke the language",
    ]
    assert {e.answer for e in examples} == {"French"}
    assert len({e.group for e in examples}) == 1
    assert len({e.id for e in examples}) == 3
    assert [e.columns["kind"] for e in examples] == ["statement", "paraphrase", "paraphrase"]
    assert examples[0].columns == {"case_id": 0, "relation": "P103", "kind": "statement"}


def test_the_flat_schema(write):
    other = {**FLAT, "prompt": "Sonic, by", "subject": "Sonic", "ground_truth": "Sega"}
    del other["rephrase_prompt"]
    examples = TASK.load(write("flat.json", [FLAT, other]))
    assert [e.prompt for e in examples] == [FLAT["prompt"], FLAT["rephrase_prompt"], "Sonic, by"]
    assert [e.answer for e in examples] == ["BBC", "BBC", "Sega"]
    assert examples[0].group == examples[1].group != examples[2].group


def test_requests_for_both_heads(write):
    example = TASK.load(write("flat.json", [FLAT]))[0]
    assert TASK.request(example, "causal") == Complete("BBC One, by", " BBC")
    assert TASK.request(example, "masked") == Complete("BBC One, by [MASK].", " BBC")


def test_right_is_what_greedy_decoding_says(write):
    example = TASK.load(write("flat.json", [FLAT]))[0]
    outcome = TASK.outcome(example, Completed(-0.5, True, 0, " BBC"))
    assert (outcome.score, outcome.log_probability, outcome.prediction) == (1.0, -0.5, "BBC")
    assert (outcome.example_id, outcome.group) == (example.id, example.group)
    wrong = TASK.outcome(example, Completed(-9.0, False, 7, " B", 2))
    assert (wrong.score, wrong.rank, wrong.tokens) == (0.0, 7, 2)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**FLAT, "ground_truth": None}, ["b.json item 1", "'ground_truth' is None"]),
        ({"promt": "x", "ground_truth": "y"}, ["'prompt' is missing", "'promt'"]),
        ({**ROME, "requested_rewrite": {"prompt": "x"}}, ["requested_rewrite", "target_true"]),
        (
            {**ROME, "requested_rewrite": {**ROME["requested_rewrite"], "prompt": "no place"}},
            ["requested_rewrite", "'no place'", "{}"],
        ),
        ({**ROME, "paraphrase_prompts": [3]}, ["paraphrase_prompts"]),
    ],
)
def test_bad_rows(write, row, words):
    with pytest.raises(InputError) as error:
        TASK.load(write("b.json", [row]))
    assert all(word in str(error.value) for word in words), str(error.value)
