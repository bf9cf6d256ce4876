from tasks.base import Generate, Generated
from tasks.counterfact_generated import CounterFactGenerated

TASK = CounterFactGenerated()
FLAT = {
    "prompt": "The mother tongue of Danielle Darrieux is",
    "subject": "Danielle Darrieux",
    "ground_truth": "French",
    "rephrase_prompt": "Danielle Darrieux, a native",
}


def test_ten_tokens_fewer_once_the_answer_stands_there(write):
    example = TASK.load(write("flat.json", [FLAT]))[0]
    expected = Generate(FLAT["prompt"], 10, " French", enough=("French",))
    assert TASK.request(example, "causal") == expected


def test_the_answer_is_looked_for_in_the_generated_text(write):
    example = TASK.load(write("flat.json", [FLAT]))[0]
    outcome = TASK.outcome(example, Generated(" her native french,", 5, -1.5, 1))
    assert (outcome.score, outcome.log_probability) == (1.0, -1.5)
    assert TASK.outcome(example, Generated(" Frenchman", 2, -1.5, 1)).score == 0.0
    # Where decoding ended at the answer, the length of the text says nothing.
    assert outcome.measures == {}
