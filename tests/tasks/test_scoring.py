import math

import pytest

from tasks.errors import InputError
from tasks.scoring import breakdown, summarise

YES_NO = ("yes", "no")


def test_scores_of_classes(example, outcomes):
    """Three of four 'yes' and one of two 'no' are right."""
    asked = [
        example(n, answer=a, label=YES_NO.index(a), choices=YES_NO)
        for n, a in enumerate(["yes"] * 4 + ["no"] * 2)
    ]
    found = outcomes([1, 1, 1, 0, 1, 0], predictions=["yes", "yes", "yes", "no", "no", "yes"])
    scores = summarise(found[::-1], asked)
    assert scores.n == 6
    assert scores.score == pytest.approx(4 / 6)
    assert scores.log_loss == pytest.approx(1 + 15 / 6)
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.majority_baseline == pytest.approx(4 / 6)
    assert (scores.top_prediction, scores.top_share) == ("yes", 4 / 6)
    assert not scores.degenerate


def test_labels_of_a_classifier_are_classes_too(example, outcomes):
    asked = [example(n, answer=str(n // 3), label=n // 3) for n in range(4)]
    assert summarise(outcomes([1, 1, 1, 0]), asked).balanced_accuracy == pytest.approx(0.5)


def test_open_answers_and_own_choices_have_no_classes(example, outcomes):
    found = outcomes([1, 0, 0])
    openly = [example(n, answer=a) for n, a in enumerate(["Paris", "Rome", "Rome"])]
    assert summarise(found, openly).balanced_accuracy is None
    assert summarise(found, openly).majority_baseline == pytest.approx(2 / 3)
    own = [
        example(n, answer=f"x{n}", label=place, choices=(f"x{n}", f"y{n}"))
        for n, place in enumerate([0, 1, 0])
    ]
    assert summarise(found, own).balanced_accuracy is None
    assert summarise(found, own).majority_baseline == pytest.approx(2 / 3)


@pytest.mark.parametrize(("same", "warned"), [(95, False), (96, True)])
def test_one_answer_above_95_percent_is_flagged(example, outcomes, same, warned):
    found = outcomes([1] * 100, predictions=["yes"] * same + ["no"] * (100 - same))
    assert summarise(found, [example(n) for n in range(100)]).degenerate is warned


def test_an_impossible_answer_makes_the_log_loss_infinite(example, outcomes):
    (found,) = outcomes([0])
    found = type(found)(found.example_id, found.group, 0.0, -math.inf, "x")
    assert summarise([found], [example(0)]).log_loss == math.inf


def test_breakdown_by_a_column(example, outcomes):
    asked = [
        example(0, kind="rare"),
        example(1, kind="common"),
        example(2, kind="common"),
        example(3),
    ]
    parts = breakdown(outcomes([1, 1, 0, 1]), asked, "kind")
    assert {value: (s.n, s.score) for value, s in parts.items()} == {
        "common": (2, 0.5),
        "rare": (1, 1.0),
    }
    assert list(parts) == ["common", "rare"]


def test_breakdown_by_an_unknown_column_names_the_nearest(example, outcomes):
    with pytest.raises(InputError, match="'kinds' is not in the data; did you mean 'kind'"):
        breakdown(outcomes([1]), [example(0, kind="x")], "kinds")
