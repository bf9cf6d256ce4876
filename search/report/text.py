"""A verdict in the terminal: one sentence, the scores, the test by kinds of question."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from search.study.verdict import Verdict
from tasks.comparison import Comparison
from tasks.scoring import Scores


def print_verdict(console: Console, verdict: Verdict, metric: str) -> None:
    """Print what was found and how far it can be trusted."""
    console.print()
    console.print(sentence(verdict, metric), soft_wrap=True, highlight=False, markup=False)
    rows = [
        (part, side, parts[part])
        for part in ("validation", "test")
        for side, parts in verdict.scores.items()
    ]
    console.print(score_table(rows, metric))
    for side, parts in verdict.scores.items():
        if parts["test"].degenerate:
            console.print(warning(side, parts["test"]), style="yellow", highlight=False)
    for column, values in verdict.columns.items():
        console.print(_column(column, values))


def sentence(verdict: Verdict, metric: str) -> str:
    """The verdict in one sentence with its interval."""
    if verdict.trial is None:
        score = verdict.scores["baseline"]["test"].score
        return (
            f"No composition beat the unedited model on validation; it keeps its "
            f"{metric} of {score:.4f} on test."
        )
    found = verdict.comparisons["test"]
    return (
        f"{verdict.composition} (trial {verdict.trial}) {_moves(found)} {metric} on test from "
        f"{found.baseline:.4f} to {found.winner:.4f}: {found.difference:+.4f}, 95 % interval "
        f"{found.low:+.4f} to {found.high:+.4f}, {_p(found.p_value)} ({found.test}; "
        f"{found.fixed} fixed, {found.broken} broken of {found.n} questions in "
        f"{found.groups} groups)."
    )


def warning(side: str, scores: Scores) -> str:
    """What to say when one prediction has taken over."""
    return (
        f"Warning: {side} answers {scores.top_prediction!r} to {scores.top_share:.0%} of the test "
        f"questions; always giving the commonest answer scores {scores.majority_baseline:.4f}."
    )


def score_table(rows: Sequence[tuple[str, str, Scores]], metric: str) -> Table:
    """A table of scores by part and model; balanced accuracy only where there are classes."""
    balanced = any(scores.balanced_accuracy is not None for _, _, scores in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("n", metric, "loss", *(["balanced"] if balanced else []), "majority"):
        table.add_column(name, justify="right")
    table.add_column("commonest", no_wrap=True, max_width=18)
    for part, side, scores in rows:
        cells = [str(scores.n), f"{scores.score:.4f}", f"{scores.log_loss:.4f}"]
        if balanced:
            value = scores.balanced_accuracy
            cells.append("" if value is None else f"{value:.4f}")
        cells.append(f"{scores.majority_baseline:.4f}")
        table.add_row(part, side, *cells, f"{scores.top_prediction!r} {scores.top_share:.0%}")
    return table


def _column(column: str, values: dict[str, dict[str, float]]) -> Table:
    sides = [side for side in ("baseline", "winner") if side in next(iter(values.values()))]
    table = Table(box=None, pad_edge=False)
    table.add_column(f"test by {column}")
    for name in ("n", *sides):
        table.add_column(name, justify="right")
    for value, found in values.items():
        table.add_row(value, f"{found['n']:.0f}", *(f"{found[side]:.4f}" for side in sides))
    return table


def _moves(found: Comparison) -> str:
    if found.low > 0:
        return "raises"
    if found.high < 0:
        return "LOWERS"
    return "does not clearly change"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
