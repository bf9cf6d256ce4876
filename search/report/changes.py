"""What a composition fixed and what it broke, question by question, from the stored outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.study.jobs import BASELINE, TEST_BASELINE, Part, test_name, trial_name
from search.study.outcomes import Evaluation, read_outcomes
from search.study.questions import OWN, read_questions
from search.study.record import StudyRecord
from tasks.base import Outcome
from tasks.comparison import Comparison, compare
from tasks.errors import InputError, nearest

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
    """Baseline and a trial on one part: fixed and broken questions, largest change first."""

    part: Part
    trial: int
    composition: str
    comparison: Comparison
    fixed: list[Change]
    broken: list[Change]
    by: str | None
    shares: dict[str, Share]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with every changed question."""
        return asdict(self)


def find_changes(
    record: StudyRecord, part: Part | None, by: str | None, trial: int | None = None
) -> Changes:
    """Compare the winner (or `trial`) with the baseline on `part`, broken down by column `by`.

    `part` None is test where it is scored, else validation. Raises InputError when there is no
    winner, its outcomes are not on record, or the data has no such column.
    """
    number, composition, effect = _chosen(record, trial)
    parts: tuple[Part, ...] = ("test", "validation") if part is None else (part,)
    for wanted in parts:
        found = _read(record, number, effect, wanted)
        if found is not None:
            before, after = found
            break
    else:
        raise InputError(
            f"trial {number} is not scored on {' or '.join(parts)} in {record.folder}; "
            f"continue with laser-search resume {record.folder}, or give another --part or --trial"
        )
    questions = read_questions(record.folder)
    pairs = _pair(before.outcomes, after.outcomes)
    changes = [_change(questions[a.example_id], a, b) for a, b in pairs if a.score != b.score]
    changes.sort(key=lambda change: (-abs(change.gain), change.example_id))
    return Changes(
        part=wanted,
        trial=number,
        composition=composition,
        comparison=compare(before.outcomes, after.outcomes),
        fixed=[change for change in changes if change.gain > 0],
        broken=[change for change in changes if change.gain < 0],
        by=by,
        shares={} if by is None else _shares(questions, pairs, by),
    )


def print_changes(console: Console, found: Changes, examples: int) -> None:
    """Print counts, the breakdown, and the first `examples` questions of either kind."""
    paired = found.comparison
    console.print(
        f"{found.composition} (trial {found.trial}) on {found.part}: {paired.baseline:.4f} to "
        f"{paired.winner:.4f}, {paired.fixed} fixed, {paired.broken} broken of {paired.n} "
        f"questions, p = {paired.p_value:.2g} ({paired.test})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if found.by is not None:
        table = Table(box=None, pad_edge=False)
        table.add_column(escape(found.by))
        for name in ("n", "baseline", "winner", "fixed", "broken"):
            table.add_column(name, justify="right")
        for value, share in found.shares.items():
            scores = (f"{share.baseline:.4f}", f"{share.winner:.4f}")
            table.add_row(escape(value), str(share.n), *scores, str(share.fixed), str(share.broken))
        console.print(table)
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


def _chosen(record: StudyRecord, trial: int | None) -> tuple[int, str, str]:
    """Number, composition and effect of the trial to look at."""
    chosen = record.summary.winner
    if trial is not None:
        chosen = next((t for t in record.trials if t.number == trial), None)
        if chosen is None or "effect" not in chosen.user_attrs:
            raise InputError(f"{record.folder} has no trial {trial} with outcomes of its own")
    if chosen is None:
        raise InputError(
            f"no trial of {record.folder} beats the baseline yet; name one with --trial"
        )
    attributes = chosen.user_attrs
    return chosen.number, str(attributes["composition"]), str(attributes["effect"])


def _read(
    record: StudyRecord, number: int, effect: str, part: Part
) -> tuple[Evaluation, Evaluation] | None:
    test = part == "test"
    study_id = record.identity.study_id
    before = read_outcomes(record.folder, TEST_BASELINE if test else BASELINE, study_id, "")
    name = test_name(number) if test else trial_name(number)
    after = read_outcomes(record.folder, name, study_id, effect)
    return None if before is None or after is None else (before, after)


def _pair(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    later = {outcome.example_id: outcome for outcome in after}
    return [(outcome, later[outcome.example_id]) for outcome in before]


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
    questions: dict[str, dict[str, Any]], pairs: Sequence[tuple[Outcome, Outcome]], by: str
) -> dict[str, Share]:
    """One share per value of column `by`, the commonest first, of the questions that have one."""
    known = [name for name in next(iter(questions.values())) if name not in HIDDEN]
    if by not in known:
        own = [name for name in known if name not in OWN]
        raise InputError(
            f"column {by!r} is not in the data{nearest(by, known)}; it has "
            f"{', '.join([*own, 'answer', 'group'])}"
        )
    parts: dict[str, list[tuple[Outcome, Outcome]]] = defaultdict(list)
    for pair in pairs:
        value = questions[pair[0].example_id][by]
        if value is not None:
            parts[str(value)].append(pair)
    ordered = sorted(parts.items(), key=lambda part: (-len(part[1]), part[0]))
    return {value: _share(found) for value, found in ordered}


def _share(pairs: Sequence[tuple[Outcome, Outcome]]) -> Share:
    weight = sum(a.weight for a, _ in pairs)
    return Share(
        n=len(pairs),
        baseline=sum(a.score * a.weight for a, _ in pairs) / weight,
        winner=sum(b.score * b.weight for _, b in pairs) / weight,
        fixed=sum(b.score > a.score for a, b in pairs),
        broken=sum(b.score < a.score for a, b in pairs),
    )


def _short(text: str, limit: int = 90) -> str:
    """The end of a prompt, where the question is."""
    return text if len(text) <= limit else f"...{text[-limit:]}"
