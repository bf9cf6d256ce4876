"""What a verdict claims, what it says to do, and how often test was looked at."""

import json
from pathlib import Path
from types import SimpleNamespace

from search.report.text import score_warnings, sentence, verdict_notices
from search.study.verdict import Verdict, _looks, read_verdict
from search.study.verdict_claim import advice, claim_of
from tasks.base import Example, Outcome
from tasks.comparison import compare
from tasks.scoring import summarise

ANSWERS = ("a", "b", "c", "d")


def _verdict(before, after, tied=1, labels=None):
    """A verdict on test from scores; `tied` answers tie wherever the winner scores 1 / tied."""
    labels = labels or [n % 4 for n in range(len(before))]
    examples = [
        Example(str(n), str(n), "?", ANSWERS[label], ANSWERS, label)
        for n, label in enumerate(labels)
    ]

    def side(scores, k):
        return [
            Outcome(str(n), str(n), s, -1.0, "a", tied=k if s == 1 / k else 1)
            for n, s in enumerate(scores)
        ]

    sides = {"baseline": side(before, 1), "winner": side(after, tied)}
    scores = {
        name: {"test": summarise(found, examples), "validation": summarise(found, examples)}
        for name, found in sides.items()
    }
    compared = {"test": compare(sides["baseline"], sides["winner"])}
    return Verdict(3, "1.fc_in=0.1", scores, compared, {}, metric="accuracy")


def test_a_gain_on_test_is_exported():
    verdict = _verdict([0.0] * 40 + [1.0] * 60, [1.0] * 100)
    assert claim_of(verdict).kind == "gain"
    assert " raises accuracy on test" in sentence(verdict, "accuracy")
    assert advice(verdict, "st") == ["Export it: laser-search export st --out MODEL_DIR"]


def test_a_loss_is_not():
    verdict = _verdict([1.0] * 100, [1.0] * 80 + [0.0] * 20)
    lines = advice(verdict, "st")
    assert claim_of(verdict).kind == "loss" and "LOWERS" in sentence(verdict, "accuracy")
    assert lines[0].startswith("Do not export it")
    assert "100 groups of test questions are enough to find a gain of 0.1" in lines[1]
    assert "search.confirm" in lines[-1] and "more questions" in lines[-1]
    assert "search.confirm" not in advice(verdict, "st", confirmed=True)[-1]


def test_what_the_commonest_answer_scores_is_no_gain():
    """From .10 to .60 by always saying a, which is right in 60 of 100."""
    labels = [0] * 60 + [1] * 40
    verdict = _verdict([0.0] * 90 + [1.0] * 10, [1.0] * 60 + [0.0] * 40, labels=labels)
    claim = claim_of(verdict)
    assert verdict.comparisons["test"].direction == 1
    assert claim.kind == "unclear" and "scores 0.6000" in claim.because
    said = sentence(verdict, "accuracy")
    assert " raises " not in said and "no gain is claimed" in said


def test_what_tied_answers_earn_is_no_gain():
    """A collapsed model has 1/4 of everything; .05 before is less, and yet it knows nothing."""
    verdict = _verdict([1.0] * 5 + [0.0] * 95, [0.25] * 100, tied=4, labels=[0, 1, 2, 3, 3] * 20)
    for part in verdict.scores.values():
        object.__setattr__(part["test"], "majority_baseline", 0.2)
    claim = claim_of(verdict)
    assert verdict.comparisons["test"].direction == 1
    assert claim.kind == "unclear" and "tied answers earn it" in claim.because
    assert " raises " not in sentence(verdict, "accuracy")
    (warning,) = [
        w for w in score_warnings("winner", verdict.scores["winner"]["test"]) if "tie" in w
    ]
    assert "tie at the top on 100% of the test questions" in warning
    assert "0.2500 of its 0.2500" in warning


def test_few_ties_take_no_gain_away():
    verdict = _verdict([0.0] * 40 + [1.0] * 60, [1.0] * 96 + [0.25] * 4, tied=4)
    assert claim_of(verdict).kind == "gain"
    assert "4.0% of the winner's answers tie" in sentence(verdict, "accuracy")


def test_a_stored_verdict_claims_the_same():
    verdict = _verdict([0.0] * 40 + [1.0] * 60, [1.0] * 100)
    stored = read_verdict(json.loads(json.dumps(verdict.to_json())))
    assert stored is not None and claim_of(stored) == claim_of(verdict)


def test_every_winner_that_test_judged_is_counted(tmp_path: Path):
    def look(trial, finished):
        winner = None if trial is None else SimpleNamespace(number=trial)
        looks = _looks(tmp_path, winner, finished)
        result = {"trial": trial, "scores": {}, "comparisons": {}, "looks": looks}
        (tmp_path / "result.json").write_text(json.dumps(result))
        return looks

    assert look(None, 5) == []
    assert look(3, 10) == look(3, 10) == [{"trial": 3, "finished": 10}]  # resumed, nothing new
    assert look(7, 20) == [{"trial": 3, "finished": 10}, {"trial": 7, "finished": 20}]
    assert len(look(7, 30)) == 3  # the same winner after more trials is another look
    # A result that is lost or damaged is written again, with what the folder still says of it.
    (tmp_path / "result.json").write_text("{")
    (tmp_path / "outcomes").mkdir()
    for trial in (3, 7):
        (tmp_path / "outcomes" / f"trial-{trial:05d}-test.parquet").touch()
    looks = _looks(tmp_path, SimpleNamespace(number=7), 30)
    assert looks == [{"trial": 3, "finished": None}, {"trial": 7, "finished": 30}]
    verdict = _verdict([0.0] * 10, [1.0] * 10)
    object.__setattr__(verdict, "looks", looks)
    assert "test has been used before: this is verdict 2 on it" in verdict_notices(verdict)[0]
