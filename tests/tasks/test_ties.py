"""Ties earn no one anything by their order: k answers at the top earn 1/k."""

import json
from math import log

import pytest

from tasks.answers import at_top, score_chosen, score_classes, score_completed, score_generated
from tasks.base import Chosen, Completed, Example, Generated
from tasks.calibration import further_scores
from tasks.paper import PaperScoring
from tasks.registry import get_task
from tasks.scoring import summarise

CHOICES = ("Paris", "Rome", "Madrid", "Berlin")


def _example(label=0, number=0):
    return Example(
        str(number), str(number), "?", CHOICES[label], tuple(f" {c}" for c in CHOICES), label
    )


@pytest.mark.parametrize("right", range(4))
def test_all_that_tie_earn_the_same_wherever_the_right_one_stands(right):
    outcome = score_chosen(_example(right), Chosen((-5.0,) * 4, (1,) * 4))
    assert (outcome.score, outcome.tied, outcome.confidence) == (0.25, 4, 0.25)
    assert outcome.prediction == " Paris |  Rome |  Madrid | ..."


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_two_at_the_top_share_a_hit(order):
    values = [(-1.0, -1.0, -3.0)[n] for n in order]
    found = [score_classes(_example(), values, right, "abc") for right in range(3)]
    assert sorted(outcome.score for outcome in found) == [0.0, 0.5, 0.5]
    assert {outcome.tied for outcome in found} == {2}


def test_what_says_nothing_prefers_no_shorter_answer():
    """A token each of a vocabulary of 400 equally likely ones: the short choice is likelier."""
    values, lengths = (-log(400), -2 * log(400)), (1, 2)
    example = Example("0", "0", "?", "a", ("a", "b c"), 0)
    assert score_chosen(example, Chosen(values, lengths)).score == 1.0
    assert score_chosen(example, Chosen(values, lengths, flat=True)).score == 0.5


def test_sums_that_differ_by_the_rounding_of_float32_are_equal():
    assert at_top((-10.0, -10.0 - 4e-6, -10.0 - 1e-5)) == (0, 1)
    assert at_top((-1e-9, -4e-7, -1e-6)) == (0, 1)
    assert at_top((-200.0, -200.0 + 5e-5)) == (0, 1)
    assert at_top((float("-inf"), float("-inf"))) == (0, 1)
    assert at_top((-1.0, float("-inf"))) == (0,)


def test_an_open_answer_earns_the_share_in_which_it_would_be_said():
    reply = Completed(-1.0, 0.5, 0, " Paris", 1, rank_tied=2, tied=2)
    outcome = score_completed(_example(), reply)
    assert (outcome.score, outcome.tied, outcome.rank_tied) == (0.5, 2, 2)


def test_places_among_the_first_ten_are_shared_too():
    """One of 4 in places 3 to 6 has half of a place among five, one of 400 hardly any of ten."""
    asked = [(3, 4), (0, 400), (0, 1), (5, 1)]
    outcomes = [
        score_completed(_example(number=n), Completed(-1.0, 0.0, rank, "", 1, tied))
        for n, (rank, tied) in enumerate(asked)
    ]
    found = further_scores(outcomes)
    assert found["top-5"] == pytest.approx((2 / 4 + 5 / 400 + 1 + 0) / 4)
    assert found["top-10"] == pytest.approx((1 + 10 / 400 + 1 + 1) / 4)


def test_a_generated_text_earns_its_share():
    texts = (("Paris it is", 0.5), ("Rome", 0.25))
    example = Example("0", "0", "?", "Paris")
    outcome = score_generated(example, Generated("Paris it is", 3, -1.0, 1, 2, texts))
    assert (outcome.score, outcome.tied) == (0.5, 2)
    assert outcome.measures["exact"] == 0.0


def test_an_accuracy_with_ties_keeps_its_majority_baseline():
    examples = [_example(n % 2, n) for n in range(4)]
    replies = [Chosen((-1.0, -1.0, -9.0, -9.0), (1,) * 4)] * 3 + [
        Chosen((-9.0, -1.0, -9.0, -9.0), (1,) * 4)
    ]
    scores = summarise(
        [score_chosen(x, r) for x, r in zip(examples, replies, strict=True)], examples
    )
    assert scores.score == pytest.approx((0.5 * 3 + 1) / 4)
    assert scores.majority_baseline == 0.5
    assert (scores.tied, scores.tied_score) == (0.75, pytest.approx(0.375))


def test_what_is_no_accuracy_has_no_majority_baseline(example, outcomes):
    examples = [example(n) for n in range(3)]
    assert summarise(outcomes([0.3, 1.0, 0.0]), examples).majority_baseline is None


def test_the_paper_keeps_its_own_rule(tmp_path):
    path = tmp_path / "claims.jsonl"
    rows = [{"claim": f"Claim {n}", "label": "SUPPORTS" if n else "REFUTES"} for n in range(2)]
    path.write_text("".join(json.dumps({**row, "id": n}) + "\n" for n, row in enumerate(rows)))
    task = PaperScoring(get_task("fever"), "causal")
    for example in task.load(str(path)):
        outcome = task.outcome(example, Chosen((-1.0, -1.0), (1, 1)))
        assert (outcome.score, outcome.tied) == (0.0, 2)  # right only if strictly likelier
