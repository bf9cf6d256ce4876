"""What a report of a study within budgets shows: who keeps how much, and what a size costs."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

from search.budget import Budget
from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.report.budgets import front, front_frame, kept_map
from search.sections import BudgetConfig
from search.study.trials import TrialRecord

REFS = tuple(MatrixRef(n, kind) for n in range(6) for kind in ("fc_in", "fc_out"))
SHAPES = [(32, 16)] * len(REFS)


@pytest.fixture
def budget() -> Budget:
    config = BudgetConfig(kept=[0.6, 0.35], kind=["keep-top", "whitened"])
    return Budget.build(config, REFS, SHAPES)


def trial_of(budget: Budget, number: int, steps, kind: str, score: float) -> TrialRecord:
    text = str(budget.composition(steps, kind))
    kept = budget.stored(steps) / budget.total
    return TrialRecord(None, number, TrialState.COMPLETE, text, text, (score,), 0.0, kept=kept)  # type: ignore[arg-type]


def test_the_map_says_what_each_matrix_keeps(budget: Budget) -> None:
    steps = budget.project([1.0] + [0.2] * 11, 0.35)
    figure = kept_map(budget, budget.composition(steps, "whitened"))
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    shares = [100 * share for share in budget.shares(steps)]
    assert [float(text) for text in shown] == pytest.approx(shares, rel=1e-2)
    assert kept_map(budget, Composition.parse(["0.fc_in=0.5"])) is None


def test_the_front_has_the_best_of_each_budget_and_kind(budget: Budget) -> None:
    trials = [
        trial_of(budget, 0, budget.uniform(0.6), "keep-top", 0.7),
        trial_of(budget, 1, budget.uniform(0.35), "keep-top", 0.5),
        trial_of(budget, 2, budget.uniform(0.6), "whitened", 0.75),
        trial_of(budget, 3, budget.project([1.0] + [0.5] * 11, 0.6), "whitened", 0.8),
    ]
    found = front_frame(budget, trials)
    assert list(found["ranks"]) == ["uniform", "uniform", "uniform", "searched"]
    assert list(found["share"]) == [0.6, 0.35, 0.6, 0.6]
    assert all(found["kept"] <= 100 * found["share"])
    lines = {
        line.get_label(): list(line.get_ydata()) for line in front(found, 0.9).axes[0].get_lines()
    }
    assert lines["plain, searched"] == lines["plain, uniform"] == [0.5, 0.7]
    assert lines["whitened, searched"] == [0.8] and lines["whitened, uniform"] == [0.75]
    assert lines["uncut"] == [0.9, 0.9]
