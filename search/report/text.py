"""A verdict in the terminal: one sentence, the scores, the test by kinds of question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.cuts.composition import brief
from search.study.collateral import Collateral
from search.study.objective import GAIN, FloorCheck, Objective, floor_sentence
from search.study.summary import Summary
from search.study.verdict import Verdict
from search.study.verdict_claim import Claim, claim_of, looks_text
from tasks.metrics import is_perplexity, shown, shown_change, shown_interval
from tasks.scoring import Scores

MAX_QUOTED = 24
"""Characters of a prediction that are shown: a summary would leave its table no room."""


def print_verdict(console: Console, verdict: Verdict, objective: Objective) -> None:
    """Print what was found and how far it can be trusted."""
    metric = verdict.metric
    console.print()
    console.print(sentence(verdict, metric), soft_wrap=True, highlight=False, markup=False)
    if verdict.tasks:
        console.print(_tasks(verdict, objective))
    else:
        print_scores(console, score_rows(verdict.scores), metric)
        _print_warnings(console, verdict.scores)
    if (cost := verdict.collateral) is not None:
        console.print(cost.sentence(), soft_wrap=True, highlight=False, markup=False)
    for notice in verdict_notices(verdict):
        console.print(f"Note: {notice}", style="yellow", highlight=False, soft_wrap=True)
    for column, values in verdict.columns.items():
        console.print(_column(column, values, metric))
    for label, task in verdict.tasks.items():
        console.print(f"\n{label} (weight {task.weight:g})", highlight=False, markup=False)
        print_scores(console, score_rows(task.scores), task.metric)
        _print_warnings(console, task.scores)
        for column, values in task.columns.items():
            console.print(_column(column, values, task.metric))
    _print_floors(console, verdict)


def score_rows(scores: Mapping[str, Mapping[str, Scores]]) -> list[tuple[str, str, Scores]]:
    """Part, side and scores in the order in which people read them."""
    return [
        (part, side, parts[part])
        for part in ("validation", "confirm", "test")
        for side, parts in scores.items()
        if part in parts
    ]


def _print_warnings(console: Console, scores: dict[str, dict[str, Scores]]) -> None:
    for side, parts in scores.items():
        for text in score_warnings(side, parts["test"]):
            console.print(text, style="yellow", highlight=False, soft_wrap=True)


def _tasks(verdict: Verdict, objective: Objective) -> Table:
    """Objective and tasks on test, before and after."""
    table = Table(box=None, pad_edge=False)
    table.add_column("test", no_wrap=True)
    for name in ("weight", "baseline", "winner", "change", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(objective.metric, "", verdict.scores, verdict.comparisons, objective.metric)]
    for label, task in verdict.tasks.items():
        name = label if task.metric in label else f"{label} ({task.metric})"
        rows.append((name, f"{task.weight:g}", task.scores, task.comparisons, task.metric))
    for name, weight, scores, comparisons, metric in rows:
        cells = [f"{shown(metric, scores['baseline']['test'].score):.4f}"]
        if comparisons:
            found = comparisons["test"]
            cells.append(f"{shown(metric, found.winner):.4f}")
            cells.append(shown_change(metric, found.difference))
            cells.append(shown_interval(metric, found.low, found.high))
        table.add_row(escape(name), weight, *cells)
    return table


def _print_floors(console: Console, verdict: Verdict) -> None:
    """Print how many trials broke a floor, and each floor on test again."""
    if not verdict.floors and not verdict.infeasible:
        return
    console.print(
        f"\n{verdict.infeasible} trials broke a floor on validation and could not win.",
        highlight=False,
    )
    for check in verdict.floors.get("test", ()):
        console.print(
            floor_sentence(check),
            style="" if check.kept else "yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def result_lines(result: Mapping[str, Any], objective: Objective) -> list[str]:
    """What a result.json says of test: the value, every task of several, every floor."""
    rows = [("test", objective.metric, result["comparisons"]["test"])]
    for label, task in result.get("tasks", {}).items():
        rows.append((f"  {label} ({task['metric']})", task["metric"], task["comparisons"]["test"]))
    lines = [
        f"{name}: {shown(metric, test['baseline']):.4f} to {shown(metric, test['winner']):.4f} "
        f"({shown_change(metric, test['difference'])}, 95 % interval "
        f"{shown_interval(metric, test['low'], test['high'])})"
        for name, metric, test in rows
    ]
    if cost := result.get("collateral"):
        found = Collateral(**cost)
        lines.append(f"  {found.sentence()}")
        lines += [f"  warning: {found.warning}"] if found.warning else []
    for side, own in result["scores"].items():
        if tied := own["test"].get("tied", 0.0):
            lines.append(f"  tied answers of {side} on test: {tied:.1%}")
    if looks := looks_text(result.get("looks", ())):
        lines.append(f"  note: {looks}")
    floors = result.get("floors", {}).get("test", [])
    return lines + [f"  {floor_sentence(FloorCheck(**check))}" for check in floors]


def front_lines(summary: Summary) -> list[str]:
    """The front of a study of score and size, or the best within each budget; else empty."""
    if summary.by_share:
        lines = ["best within each budget, on validation:"]
        for share, trial in summary.by_share.items():
            score = summary.objective.text(trial.score or 0.0, trial.scores)
            lines.append(f"  {share:g}: {score}, {trial.brief} (trial {trial.number})")
        return lines
    if not summary.front:
        return []
    lines = ["front (no trial is better in both):"]
    for trial in summary.front:
        score = summary.objective.text(trial.score or 0.0, trial.scores)
        kept = f"{trial.kept:.1%} of the parameters"
        lines.append(f"  {score}, {kept}: {trial.brief} (trial {trial.number})")
    return lines


def sentence(verdict: Verdict, metric: str) -> str:
    """The verdict in one sentence with its interval."""
    if verdict.trial is None:
        kept = " that keeps every floor" if verdict.infeasible else ""
        none = f"No composition{kept} beat the unedited model on validation"
        if verdict.budgets:
            none = "No composition within the budget keeps every floor on validation"
        elif verdict.finalists:
            none = (
                f"Nothing helps: of {verdict.finalists} compositions that beat the unedited model "
                "on validation none did on the confirmation part, which no trial had seen"
            )
        if metric == GAIN:
            return f"{none}."
        score = shown(metric, verdict.scores["baseline"]["test"].score)
        keeps = "the unedited model has a" if verdict.budgets else "it keeps its"
        return f"{none}; {keeps} {metric} of {score:.4f} on test."
    found, claim = verdict.comparisons["test"], claim_of(verdict)
    end = f"; but {claim.because}, so no gain is claimed." if claim.because else "."
    tied = verdict.scores["winner"]["test"].tied
    if tied:
        end = f"; {tied:.1%} of the winner's answers tie{end}"
    return (
        f"{brief(verdict.composition, verdict.kept)} (trial {verdict.trial}) "
        f"{_moves(claim, metric)} {metric} on test "
        f"from {shown(metric, found.baseline):.4f} to {shown(metric, found.winner):.4f}: "
        f"{shown_change(metric, found.difference)}, 95 % interval "
        f"{shown_interval(metric, found.low, found.high)}, {_p(found.p_value)} ({found.test}; "
        f"{found.fixed} fixed, {found.broken} broken of {found.n} questions in "
        f"{found.groups} groups){end}"
    )


def verdict_notices(verdict: Verdict) -> list[str]:
    """What to know beside a verdict: cut prompts, an earlier use of test, the paper's own ties."""
    found = [n for part, cut in verdict.truncated.items() for n in truncation_notices(part, cut)]
    if looks := looks_text(verdict.looks):
        found.append(looks)
    if verdict.collateral is not None and verdict.collateral.warning:
        found.append(verdict.collateral.warning)
    if verdict.paper:
        found.append(PAPER_TIES)
    return found


PAPER_TIES = (
    "scoring 'paper': ties are resolved by the order of the answers, as in the paper's code"
)


def truncation_notices(part: str, truncated: int) -> list[str]:
    """What to say when prompts did not fit into the model."""
    if not truncated:
        return []
    return [f"{truncated} prompts were truncated to the model's length ({part})"]


def warning(side: str, scores: Scores, part: str = "test") -> str:
    """What to say when one prediction has taken over; `part` may be ``all``."""
    asked = "questions" if part == "all" else f"{part} questions"
    found = (
        f"Warning: {side} answers {_quoted(scores.top_prediction)} to {scores.top_share:.0%} of "
        f"the {asked}"
    )
    if scores.majority_baseline is None:
        return f"{found}."
    return f"{found}; always giving the most common answer scores {scores.majority_baseline:.4f}."


def score_warnings(side: str, scores: Scores, part: str = "test") -> list[str]:
    """What to say where one prediction has taken over, or many answers tie."""
    found = [warning(side, scores, part)] if scores.degenerate else []
    if scores.ties:
        asked = "questions" if part == "all" else f"{part} questions"
        found.append(
            f"Warning: answers of {side} tie at the top on {scores.tied:.0%} of the {asked}; they "
            f"earn {scores.tied_score:.4f} of its {scores.score:.4f} and say nothing"
        )
    return found


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
    tied = any(scores.tied for _, _, scores in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    optional = [*(["balanced"] if balanced else []), *(["majority"] if majority else [])]
    optional += ["tied"] if tied else []
    for name in ("n", metric, "log-loss", *optional):
        table.add_column(name, justify="right", no_wrap=True)
    if said:
        table.add_column("most common", no_wrap=True)
    for part, side, scores in rows:
        values: list[float | None] = [shown(metric, scores.score), scores.log_loss]
        values += [scores.balanced_accuracy] if balanced else []
        values += [scores.majority_baseline] if majority else []
        cells = [str(scores.n), *("" if value is None else f"{value:.4f}" for value in values)]
        if tied:
            cells.append(f"{scores.tied:.0%}")
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


def _moves(claim: Claim, metric: str) -> str:
    """What happened to the metric; what is bad stands in capitals."""
    better, worse = ("lowers", "RAISES") if is_perplexity(metric) else ("raises", "LOWERS")
    if claim.because:
        return "moves"
    return {"gain": better, "loss": worse}.get(claim.kind, "does not clearly change")


def _quoted(prediction: str | None) -> str:
    """A prediction in quotes, a long one by its beginning."""
    text = prediction or ""
    return repr(text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 1]}…")


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
