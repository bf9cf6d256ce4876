"""What a composition fixed and what it broke, question by question, from the stored outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.cuts.composition import brief
from search.study.jobs import BASELINE, TEST_BASELINE, Part, test_name, trial_name
from search.study.objective import Objective
from search.study.outcomes import Evaluation, read_outcomes
from search.study.questions import OWN, read_questions
from search.study.study_record import StudyRecord
from search.study.verdict import pooled
from tasks.base import Outcome
from tasks.comparison import Comparison, compare
from tasks.errors import InputError, nearest
from tasks.metrics import shown
from tasks.printable import printable

HIDDEN = ("example_id", "prompt", "choices")
"""Columns by which nothing is broken down: each question has its own value."""


@dataclass(frozen=True)
class Change:
    """One question whose score changed; what the model said before and says after."""

    example_id: str
    prompt: str
    answer: str
    before: str | None
    after: str | None
    gain: float


@dataclass(frozen=True)
class Share:
    """The questions with one value of a column: mean scores, and how many rose and fell."""

    n: int
    baseline: float
    winner: float
    fixed: int
    broken: int


@dataclass(frozen=True)
class Changes:
    """Baseline and a trial on one part: fixed and broken questions, largest change first.

    `metric`: what the scores of `comparison` are; `metrics`: by value, those of `shares`. `tasks`:
    of a study of several tasks, each one's comparison by its label.
    """

    part: Part
    trial: int
    composition: str
    comparison: Comparison
    fixed: list[Change]
    broken: list[Change]
    by: str | None
    shares: dict[str, Share]
    metric: str = "score"
    metrics: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, Comparison] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with every changed question."""
        return asdict(self)


def find_changes(
    record: StudyRecord,
    part: Part | None,
    by: str | None,
    trial: int | None = None,
    task: str | None = None,
) -> Changes:
    """Compare the winner (or `trial`) with the baseline on `part`, broken down by column `by`.

    `part` None is test where it is scored, else validation; `task` is the label of one of several,
    None for all. Raises InputError when there is no winner, its outcomes are not on record, or the
    data has no such column or task.
    """
    objective = record.summary.objective
    if task is not None and task not in objective.metrics:
        known = ", ".join(filter(None, objective.metrics)) or "one task, which needs no --task"
        raise InputError(f"task {task!r} is not in {record.folder}; it has {known}")
    number, composition, effect = _chosen(record, trial)
    wanted, before, after = _find(record, number, effect, part)
    questions = read_questions(record.folder)
    pairs = _pair(before.outcomes, after.outcomes, task)
    changes = [_change(questions[a.example_id], a, b) for a, b in pairs if a.score != b.score]
    changes.sort(key=lambda change: (-abs(change.gain), change.example_id))
    shares, metrics = ({}, {}) if by is None else _shares(questions, pairs, by, objective)
    labels = [] if objective.single or task is not None else list(objective.metrics)
    if labels:
        sides = {"baseline": before, "winner": after}
        whole = pooled({side: {str(wanted): x} for side, x in sides.items()}, (wanted,), objective)
        comparison = compare(whole["baseline"][wanted], whole["winner"][wanted])
    else:
        comparison = _compare(pairs)
    return Changes(
        part=wanted,
        trial=number,
        composition=composition,
        comparison=comparison,
        fixed=[change for change in changes if change.gain > 0],
        broken=[change for change in changes if change.gain < 0],
        by=by,
        shares=shares,
        metric=objective.metrics[task] if task is not None else objective.metric,
        metrics=metrics or {label: objective.metrics[label] for label in labels},
        tasks={x: _compare(_pair(before.outcomes, after.outcomes, x)) for x in labels},
    )


def print_changes(console: Console, found: Changes, examples: int) -> None:
    """Print counts, the breakdown, and the first `examples` questions of either kind."""
    paired = found.comparison
    console.print(
        f"{brief(found.composition)} (trial {found.trial}) on {found.part}: {found.metric} "
        f"{_moved(found.metric, paired)}, {paired.fixed} fixed, {paired.broken} broken of "
        f"{paired.n} questions, p = {paired.p_value:.2g} ({paired.test})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for label, own in found.tasks.items():
        console.print(
            f"{label}: {found.metrics.get(label, 'score')} "
            f"{_moved(found.metrics.get(label, 'score'), own)}, {own.fixed} fixed, {own.broken} "
            f"broken of {own.n} questions, p = {own.p_value:.2g} ({own.test})",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if found.by is not None:
        console.print(_table(found.by, found))
    for title, changes in (("fixed", found.fixed), ("broken", found.broken)):
        for change in changes[:examples]:
            console.print(
                f"{title} {change.example_id}: {_short(change.prompt)!r} is {change.answer!r}; "
                f"said {change.before!r}, now {change.after!r}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        if len(changes) > examples:
            console.print(f"and {len(changes) - examples} more {title}", highlight=False)


def _table(by: str, found: Changes) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(escape(printable(by)))
    for name in ("n", "baseline", "winner", "fixed", "broken"):
        table.add_column(name, justify="right")
    for value, share in found.shares.items():
        metric = found.metrics[value]
        scores = (f"{shown(metric, x):.4f}" for x in (share.baseline, share.winner))
        table.add_row(
            escape(printable(value)), str(share.n), *scores, str(share.fixed), str(share.broken)
        )
    return table


def _moved(metric: str, found: Comparison) -> str:
    return f"{shown(metric, found.baseline):.4f} to {shown(metric, found.winner):.4f}"


def _compare(pairs: Sequence[tuple[Outcome, Outcome]]) -> Comparison:
    return compare([before for before, _ in pairs], [after for _, after in pairs])


def _chosen(record: StudyRecord, trial: int | None) -> tuple[int, str, str]:
    """Number, composition and effect of the trial to look at."""
    chosen = record.summary.winner
    if trial is not None:
        chosen = next((t for t in record.trials if t.number == trial), None)
        if chosen is None or not chosen.effect:
            raise InputError(f"{record.folder} has no outcomes of a trial {trial}")
    if chosen is None:
        raise InputError(
            f"no trial of {record.folder} beats the baseline yet; choose one with --trial"
        )
    return chosen.number, chosen.text, chosen.effect


def _find(
    record: StudyRecord, number: int, effect: str, part: Part | None
) -> tuple[Part, Evaluation, Evaluation]:
    """The part that is scored, the baseline on it, the trial on it."""
    parts: tuple[Part, ...] = ("test", "validation") if part is None else (part,)
    study_id = record.identity.study_id
    for wanted in parts:
        test = wanted == "test"
        before = read_outcomes(record.folder, TEST_BASELINE if test else BASELINE, study_id, "")
        name = test_name(number) if test else trial_name(number)
        after = read_outcomes(record.folder, name, study_id, effect)
        if before is not None and after is not None:
            return wanted, before, after
    raise InputError(
        f"trial {number} is not scored on {' or '.join(parts)} in {record.folder}; "
        f"continue with laser-search resume {record.folder}, or give another --part or --trial"
    )


def _pair(
    before: Sequence[Outcome], after: Sequence[Outcome], task: str | None = None
) -> list[tuple[Outcome, Outcome]]:
    """Outcomes of one question each, of one task if it is named."""
    later = {outcome.example_id: outcome for outcome in after}
    return [
        (outcome, later[outcome.example_id])
        for outcome in before
        if task is None or (outcome.task or "") == task
    ]


def _change(question: dict[str, Any], before: Outcome, after: Outcome) -> Change:
    return Change(
        before.example_id,
        question["prompt"],
        question["answer"],
        before.prediction,
        after.prediction,
        after.score - before.score,
    )


def _shares(
    questions: dict[str, dict[str, Any]],
    pairs: Sequence[tuple[Outcome, Outcome]],
    by: str,
    objective: Objective,
) -> tuple[dict[str, Share], dict[str, str]]:
    """One share per value of column `by`, the commonest first, and the metric of each.

    Questions that lack the column are left out; those of one value are of one task.
    """
    known = [name for name in next(iter(questions.values())) if name not in HIDDEN]
    if by not in known:
        own = [name for name in known if name not in OWN]
        raise InputError(
            f"column {by!r} is not in the data{nearest(by, known)}; it has "
            f"{', '.join([*own, 'answer', 'group'])}"
        )
    parts: dict[str, list[tuple[Outcome, Outcome]]] = defaultdict(list)
    metrics: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        value = questions[pair[0].example_id][by]
        if value is not None:
            parts[str(value)].append(pair)
            metrics[str(value)].add(pair[0].task or "")
    if any(len(tasks) > 1 for tasks in metrics.values()):
        raise InputError(f"several tasks have a column {by!r}; choose one of them with --task")
    ordered = sorted(parts.items(), key=lambda part: (-len(part[1]), part[0]))
    return (
        {value: _share(found) for value, found in ordered},
        {value: objective.metrics[tasks.pop()] for value, tasks in metrics.items()},
    )


def _share(pairs: Sequence[tuple[Outcome, Outcome]]) -> Share:
    weight = sum(a.weight for a, _ in pairs)
    return Share(
        n=len(pairs),
        baseline=sum(a.score * a.weight for a, _ in pairs) / weight,
        winner=sum(b.score * b.weight for _, b in pairs) / weight,
        fixed=sum(b.score > a.score for a, b in pairs),
        broken=sum(b.score < a.score for a, b in pairs),
    )


def _short(text: str) -> str:
    """The end of a prompt, where the question is."""
    return text if len(text) <= 90 else f"...{text[-90:]}"
