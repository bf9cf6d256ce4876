"""A verdict in the terminal: one sentence, the scores, the test by kinds of question."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from search.study.verdict import Verdict
from tasks.comparison import Comparison
from tasks.metrics import PERPLEXITY, shown, shown_change, shown_interval
from tasks.scoring import Scores

MAX_QUOTED = 24
"""Characters of a prediction that are shown: a summary would leave its table no room."""


def print_verdict(console: Console, verdict: Verdict, metric: str) -> None:
    """Print what was found and how far it can be trusted."""
    console.print()
    console.print(sentence(verdict, metric), soft_wrap=True, highlight=False, markup=False)
    rows = [
        (part, side, parts[part])
        for part in ("validation", "test")
        for side, parts in verdict.scores.items()
    ]
    print_scores(console, rows, metric)
    for side, parts in verdict.scores.items():
        if parts["test"].degenerate:
            console.print(warning(side, parts["test"]), style="yellow", highlight=False)
    for part, truncated in verdict.truncated.items():
        for notice in truncation_notices(part, truncated):
            console.print(f"Note: {notice}", style="yellow", highlight=False)
    for column, values in verdict.columns.items():
        console.print(_column(column, values, metric))


def sentence(verdict: Verdict, metric: str) -> str:
    """The verdict in one sentence with its interval."""
    if verdict.trial is None:
        score = shown(metric, verdict.scores["baseline"]["test"].score)
        return (
            f"No composition beat the unedited model on validation; it keeps its "
            f"{metric} of {score:.4f} on test."
        )
    found = verdict.comparisons["test"]
    return (
        f"{verdict.composition} (trial {verdict.trial}) {_moves(found, metric)} {metric} on test "
        f"from {shown(metric, found.baseline):.4f} to {shown(metric, found.winner):.4f}: "
        f"{shown_change(metric, found.difference)}, 95 % interval "
        f"{shown_interval(metric, found.low, found.high)}, {_p(found.p_value)} ({found.test}; "
        f"{found.fixed} fixed, {found.broken} broken of {found.n} questions in "
        f"{found.groups} groups)."
    )


def truncation_notices(part: str, truncated: int) -> list[str]:
    """What to say when prompts did not fit into the model."""
    if not truncated:
        return []
    return [f"{truncated} prompts were cut to the model's length ({part}, counted per answer)"]


def warning(side: str, scores: Scores) -> str:
    """What to say when one prediction has taken over."""
    found = (
        f"Warning: {side} answers {_quoted(scores.top_prediction)} to {scores.top_share:.0%} of "
        "the test questions"
    )
    if scores.majority_baseline is None:
        return f"{found}."
    return f"{found}; always giving the commonest answer scores {scores.majority_baseline:.4f}."


def print_scores(console: Console, rows: Sequence[tuple[str, str, Scores]], metric: str) -> None:
    """Print scores by part and model, and below them those that only some tasks have."""
    console.print(score_table(rows, metric))
    found = [{**scores.measures, **scores.further} for _, _, scores in rows]
    names = list(dict.fromkeys(name for values in found for name in values))
    if not names:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", ""):
        table.add_column(column)
    for name in names:
        table.add_column(name, justify="right")
    for (part, side, _), own in zip(rows, found, strict=True):
        cells = [f"{own[name]:.4f}" if name in own else "" for name in names]
        table.add_row(part, side, *cells)
    console.print(table)


def score_table(rows: Sequence[tuple[str, str, Scores]], metric: str) -> Table:
    """A table of scores by part and model; balanced accuracy only where there are classes."""
    balanced = any(scores.balanced_accuracy is not None for _, _, scores in rows)
    majority = any(scores.majority_baseline is not None for _, _, scores in rows)
    said = any(scores.top_prediction is not None for _, _, scores in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    optional = [*(["balanced"] if balanced else []), *(["majority"] if majority else [])]
    for name in ("n", metric, "log-loss", *optional):
        table.add_column(name, justify="right", no_wrap=True)
    if said:
        table.add_column("commonest", no_wrap=True)
    for part, side, scores in rows:
        values: list[float | None] = [shown(metric, scores.score), scores.log_loss]
        values += [scores.balanced_accuracy] if balanced else []
        values += [scores.majority_baseline] if majority else []
        cells = [str(scores.n), *("" if value is None else f"{value:.4f}" for value in values)]
        if said:
            cells.append(f"{_quoted(scores.top_prediction)} {scores.top_share:.0%}")
        table.add_row(part, side, *cells)
    return table


def _column(column: str, values: dict[str, dict[str, float]], metric: str) -> Table:
    sides = [side for side in ("baseline", "winner") if side in next(iter(values.values()))]
    table = Table(box=None, pad_edge=False)
    table.add_column(f"test by {column}")
    for name in ("n", *sides):
        table.add_column(name, justify="right")
    for value, found in values.items():
        table.add_row(
            value, f"{found['n']:.0f}", *(f"{shown(metric, found[side]):.4f}" for side in sides)
        )
    return table


def _moves(found: Comparison, metric: str) -> str:
    """What happened to the metric; what is bad stands in capitals."""
    better, worse = ("lowers", "RAISES") if metric == PERPLEXITY else ("raises", "LOWERS")
    if found.low > 0:
        return better
    if found.high < 0:
        return worse
    return "does not clearly change"


def _quoted(prediction: str | None) -> str:
    """A prediction in quotes, a long one by its beginning."""
    text = prediction or ""
    return repr(text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 1]}…")


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
