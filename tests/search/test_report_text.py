"""What people read: perplexities, further measures, long predictions."""

import io

import pytest
from optuna.trial import create_trial
from rich.console import Console

from search.report.live import plain, table
from search.report.text import print_scores, sentence, warning
from search.study.objective import Goal, Objective
from search.study.outcomes import Evaluation
from search.study.summary import summarise as state_of
from search.study.trials import TrialRecord
from search.study.verdict import Verdict
from search.study.verdict_claim import advice
from tasks.base import Example, Outcome
from tasks.comparison import compare
from tasks.scoring import summarise

EXAMPLES = [Example(f"e{n}", f"g{n}", f"q{n}", "a") for n in range(40)]


def _losses(nats):
    return [Outcome(e.id, e.group, -nats, -nats, None, weight=9.0) for e in EXAMPLES]


def _shown(scores, metric):
    console = Console(width=80, record=True, file=io.StringIO())
    print_scores(console, [("all", "baseline", scores)], metric)
    return console.export_text()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (2.9, "lowers perplexity on test from 20.0855 to 18.1741: -9.52%"),
        (3.1, "RAISES perplexity"),
    ],
)
def test_a_verdict_on_perplexity(after, words):
    before, edited = _losses(3.0), _losses(after)
    scores = {
        side: {"test": summarise(found, EXAMPLES)}
        for side, found in (("baseline", before), ("winner", edited))
    }
    verdict = Verdict(1, "0.fc_in=0.1", scores, {"test": compare(before, edited)}, {})
    assert words in sentence(verdict, "perplexity")


def test_a_table_of_perplexity_has_no_predictions():
    text = _shown(summarise(_losses(3.0), EXAMPLES), "perplexity")
    assert "20.0855" in text
    assert "3.0000" in text
    assert "majority" not in text
    assert "most common" not in text


def test_measures_have_a_table_of_their_own_and_long_predictions_are_cut():
    said = "a summary that goes on and on " * 9
    found = [
        Outcome(e.id, e.group, 0.25, -4.0, said, measures={"rouge1": 0.5, "loss": 2.0})
        for e in EXAMPLES
    ]
    scores = summarise(found, EXAMPLES)
    text = _shown(scores, "rougeL")
    for word in ("0.2500", "rouge1", "0.5000", "loss", "2.0000", "a summary that goes on"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(warning("baseline", scores)) < 120


def test_a_perplexity_is_shown_as_one_while_the_study_runs():
    """The trials hold minus the nats; people read the perplexity, in which less is better."""
    objective = Objective((Goal("", "perplexity"),))
    baseline = Evaluation("b", "s", "baseline", "", "validation", -3.0, 3.0, {})
    trial = create_trial(
        value=-2.9,
        user_attrs={"effect": "0.fc_in=rank:1", "log_loss": 2.9, "composition": "0.fc_in=0.1"},
    )
    summary = state_of([TrialRecord.of(trial)], baseline, 1, objective)
    assert summary.winner is not None
    for said in (plain(summary), _text(table(summary))):
        assert "20.0855" in said
        assert "18.1741" in said
        assert "-3.0" not in said


def _text(renderable):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_a_budget_that_no_trial_keeps_with_its_floors_is_said_as_such():
    scores = {"baseline": {"test": summarise(_losses(3.0), EXAMPLES)}}
    verdict = Verdict(None, "baseline", scores, {}, {}, infeasible=3, budgets=[0.45])
    said = sentence(verdict, "perplexity")
    assert said.startswith("No composition within the budget keeps every floor on validation")
    assert "beat" not in said and "20.0855" in said
    assert "a larger budget, or a looser floor" in " ".join(advice(verdict, "s"))
