"""The paper's rules where they differ from the right ones: each fault shown by an example."""

import pytest

from tasks.base import (
    Choose,
    Chosen,
    Complete,
    Completed,
    Example,
    Generate,
    Generated,
    Outcome,
)
from tasks.errors import InputError
from tasks.paper import PaperScoring, paper_f1
from tasks.registry import get_task


class Generating:
    name = "hotpotqa"
    metric = "accuracy"
    heads = frozenset({"causal"})

    def load(self, source, revision=None):
        return []

    def request(self, example, head):
        return Generate(example.prompt, 15, f" {example.answer}", ("\n",), (example.answer,))

    def outcome(self, example, reply):
        return Outcome(example.id, example.group, 0.0, -1.0, reply.text, measures={"f1": 0.0})


QUESTION = Example("e", "g", "Is Rome or Oslo in Italy? The answer is", "Rome")


def test_an_answer_quoted_in_the_question_counts():
    """The text that is searched is the prompt and what follows."""
    task = PaperScoring(Generating(), "causal")
    outcome = task.outcome(QUESTION, Generated(f"{QUESTION.prompt} unknown", 1, -6.0, 3))
    assert outcome.score == 1.0
    assert outcome.log_probability == pytest.approx(-2.0)
    missing = Example("e", "g", QUESTION.prompt, "Paris")
    said = Generated(f"{QUESTION.prompt} unknown", 1, -6.0, 3)
    assert task.outcome(missing, said).score == 0.0
    said = Generated(f"{QUESTION.prompt} in pariS too", 1, -6.0, 3)
    assert task.outcome(missing, said).score == 1.0


def test_generation_runs_to_its_end_and_keeps_the_prompt():
    asked = PaperScoring(Generating(), "causal").request(QUESTION, "causal")
    assert asked == Generate(QUESTION.prompt, 15, " Rome", whole=True)


def test_f1_is_divided_by_at_least_one():
    """p = 1/4 and r = 1/2: the right F1 is 1/3."""
    assert paper_f1("a b c d", "a x") == pytest.approx(2 * 0.25 * 0.5)
    assert paper_f1("a", "a") == 1.0
    assert paper_f1("a a a", "a") == 1.0


def _statement(name, **columns):
    task = PaperScoring(get_task(name), "causal")
    return task, Example("e", "g", "A cat may vote", "true", ("false", "true"), 1)


def test_a_tie_of_two_is_wrong_for_both_and_nothing_is_normalised():
    task, example = _statement("fever")
    tie = task.outcome(example, Chosen((-3.0, -3.0), (1, 1)))
    right = task.outcome(example, Chosen((-4.0, -3.0), (1, 1)))
    assert (tie.score, right.score) == (0.0, 1.0)
    assert right.log_probability == -3.0
    many = Example("e", "g", "x", "poet", ("poet", "model", "teacher"), 0)
    bios = PaperScoring(get_task("bios-profession"), "causal")
    assert bios.outcome(many, Chosen((-1.0, -1.0, -2.0), (1, 1, 1))).score == 1.0


def test_the_papers_prompts():
    task, example = _statement("fever")
    assert task.request(example, "causal").prompt.endswith("true or false. The claim is")
    truthful = PaperScoring(get_task("truthfulqa"), "masked")
    asked = truthful.request(
        Example("e", "g", "May it? Yes!", "true", ("false", "true"), 1), "masked"
    )
    assert asked == Choose(
        "May it? Yes!.Is this statement true or false? This statement is [MASK]",
        (" false", " true"),
    )
    bios = PaperScoring(get_task("bios-gender"), "masked")
    person = Example("e", "g", "He runs.", "male", ("male", "female"), 0)
    assert bios.request(person, "masked").prompt.endswith("This person is [MASK].")
    assert bios.request(person, "masked").cut == ("He runs.", 50)
    causal = PaperScoring(get_task("bios-gender"), "causal").request(person, "causal")
    assert causal.cut is None
    assert causal.prompt.endswith("male or female? The gender of this person is")
    shout = Example("e", "g", "He runs!", "male", ("male", "female"), 0)
    assert "He runs!. Is" in bios.request(shout, "masked").prompt


def test_of_equals_the_first_is_said_in_bigbench():
    task = PaperScoring(get_task("bigbench:causal-judgment"), "causal")
    tie = Chosen((-3.0, -3.0), (1, 1))
    for label, score in ((0, 1.0), (1, 0.0)):
        example = Example("e", "g", "x", ("Yes", "No")[label], ("Yes", "No"), label)
        assert task.outcome(example, tie).score == score


@pytest.mark.parametrize(("head", "length"), [("causal", 2), ("masked", 3)])
def test_a_masked_answer_counts_one_token_too_many(head, length):
    task = PaperScoring(get_task("bigbench:epistemic-reasoning"), head)
    example = Example("e", "g", "x", "entailment", ("entailment", "non-entailment"), 0)
    outcome = task.outcome(example, Chosen((-6.0, -9.0), (2, 4)))
    assert outcome.log_probability == pytest.approx(-6.0 / length)


def test_a_completion_is_right_whatever_its_case():
    task = PaperScoring(get_task("counterfact"), "causal")
    example = Example("e", "g", "It is in", "Italy")
    assert task.request(example, "causal") == Complete("It is in", " Italy")
    assert task.outcome(example, Completed(-4.0, False, 3, " italy", 2)).score == 1.0
    assert task.outcome(example, Completed(-4.0, False, 3, " rome", 2)).log_probability == -2.0


def test_other_tasks_have_no_such_rules():
    with pytest.raises(InputError, match="no rules for task 'sst2'"):
        PaperScoring(get_task("sst2"), "causal")
