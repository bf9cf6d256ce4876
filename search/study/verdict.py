"""The end of a study: baseline and winner on data that the search never saw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from search.study.collateral import Collateral, GeneralText
from search.study.identity import Identity
from search.study.jobs import (
    BASELINE,
    CONFIRM_BASELINE,
    TEST_BASELINE,
    confirm_name,
    guard_baseline,
    guard_name,
    test_name,
    trial_name,
)
from search.study.objective import FloorCheck, Objective
from search.study.outcomes import FOLDER as OUTCOMES
from search.study.outcomes import Evaluation, read_outcomes
from search.study.sealed_files import DamagedError, read_sealed_json, write_sealed_json
from search.study.trials import TrialRecord
from search.study.winner import Decision
from tasks.base import Example, Outcome
from tasks.comparison import Comparison, compare
from tasks.datasets import Split
from tasks.errors import InputError
from tasks.scoring import Scores, breakdown, by_task, summarise

FILE = "result.json"
MAX_VALUES = 12
"""Columns with more distinct values than this are no categories and are not broken down."""


Columns = dict[str, dict[str, dict[str, float]]]
"""The test part by column, by its value: every side's score, and `n`."""


@dataclass(frozen=True)
class TaskVerdict:
    """One of several tasks: scores by side and part, comparisons by part, the test by column."""

    metric: str
    weight: float
    scores: dict[str, dict[str, Scores]]
    comparisons: dict[str, Comparison]
    columns: Columns


@dataclass(frozen=True)
class Verdict:
    """Scores of baseline and winner by part, their comparison by part, the test by column.

    `truncated`: by part, how many questions had their prompt cut to the model's length. `metric`:
    what the scores are. Of several tasks scores and comparisons are of the objective, and `tasks`
    has each task by its label. `floors`: by part, each floor and whether the winner (without one
    the baseline) keeps it. `infeasible`: how many trials broke one on validation. `finalists`: how
    many trials were asked again on the confirmation part, which none had seen; 0: there is none.
    `looks`: every winner of this study that test has judged so far, this one last, as its `trial`
    and how many trials were `finished` then (None: not on record).
    `paper`: scored by the rules of the paper's code, whose ties go by order. `collateral`: what the
    winner costs on general text, None where that is not asked. `budgets`: the shares of the
    parameters of the space's matrices that were asked for, empty where none was; within one, `kept`
    is what the winner keeps, and it need not beat the baseline.
    """

    trial: int | None
    composition: str
    scores: dict[str, dict[str, Scores]]
    comparisons: dict[str, Comparison]
    columns: Columns
    truncated: dict[str, int] = field(default_factory=dict)
    metric: str = "score"
    tasks: dict[str, TaskVerdict] = field(default_factory=dict)
    floors: dict[str, list[FloorCheck]] = field(default_factory=dict)
    infeasible: int = 0
    finalists: int = 0
    looks: list[dict[str, int | None]] = field(default_factory=list)
    paper: bool = False
    collateral: Collateral | None = None
    kept: float | None = None
    budgets: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data for result.json."""
        return asdict(self)


def conclude(
    folder: Path,
    identity: Identity,
    decision: Decision,
    split: Split,
    objective: Objective,
    *,
    paper: bool = False,
    general_text: GeneralText | None = None,
    budgets: Sequence[float] = (),
) -> Verdict | None:
    """Compare and durably write result.json; None while test, or general text, is not scored."""
    winner, finalists = decision.winner, decision.finalists

    def read(name: str, effect: str) -> Evaluation | None:
        return read_outcomes(folder, name, identity.study_id, effect)

    sides = {"baseline": {"validation": read(BASELINE, ""), "test": read(TEST_BASELINE, "")}}
    if winner is not None:
        effect = winner.effect
        sides["winner"] = {
            "validation": read(trial_name(winner.number), effect),
            "test": read(test_name(winner.number), effect),
        }
    parts = {part: asked for part, asked in split.parts.items() if finalists or part != "confirm"}
    if finalists:
        sides["baseline"]["confirm"] = read(CONFIRM_BASELINE, "")
        if winner is not None:
            sides["winner"]["confirm"] = read(confirm_name(winner.number), effect)
    known = {
        side: {part: evaluation for part, evaluation in found.items() if evaluation is not None}
        for side, found in sides.items()
    }
    if any(len(found) < len(parts) for found in known.values()):
        return None
    collateral = None
    if winner is not None and general_text is not None:
        digest = general_text.digest
        before = read(guard_baseline(digest), "")
        after = read(guard_name(winner.number, digest), winner.effect)
        if before is None or after is None:
            return None
        held = None if objective.guard is None else objective.guard.floor
        limit = None if held is None else held.worse_by
        collateral = Collateral.of(general_text.source, before, after, limit)
    verdict = replace(
        _verdict(winner, known, parts, objective),
        infeasible=decision.infeasible,
        finalists=finalists,
        looks=_looks(folder, winner, decision.finished),
        paper=paper,
        collateral=collateral,
        kept=winner.kept if budgets and winner is not None else None,
        budgets=list(budgets),
    )
    write_sealed_json(folder / FILE, verdict.to_json())
    return verdict


def _looks(
    folder: Path, winner: TrialRecord | None, finished: int | None
) -> list[dict[str, int | None]]:
    """The looks at test on record, and this one if anything has changed since the last.

    Winners whose answers on test lie in the folder were scored there too, though a result.json that
    was lost or written by an earlier version does not say when.
    """
    trial = None if winner is None else winner.number
    before: Mapping[str, Any] = {}
    with suppress(InputError):  # a damaged one is written again now
        before = read_result(folder) or {}
    looks: list[dict[str, int | None]] = list(before.get("looks", ()))
    known = {look["trial"] for look in looks}
    on_file = sorted(
        int(p.stem.split("-")[1]) for p in folder.glob(f"{OUTCOMES}/trial-*-test.parquet")
    )
    missing = [n for n in on_file if n not in known and n != trial]
    looks = [{"trial": n, "finished": None} for n in missing] + looks
    if trial is None:
        return looks
    last = looks[-1] if looks else None
    if last is None or last["trial"] != trial or last["finished"] != finished:
        looks.append({"trial": trial, "finished": finished})
    return looks


def read_result(folder: Path) -> dict[str, Any] | None:
    """The verdict of a finished study as plain data, None while there is none.

    Raises InputError if it is damaged.
    """
    try:
        found = read_sealed_json(folder / FILE)
        if not _is_verdict(found):
            raise DamagedError("it does not have the structure of a result")
        return found
    except OSError:
        return None
    except DamagedError as error:
        raise InputError(
            f"{folder / FILE} is damaged ({error}); laser-search resume {folder} writes it again "
            "from the outcomes"
        ) from None


_NUMBERS = ("baseline", "winner", "difference", "low", "high")


def _is_verdict(found: Mapping[str, Any]) -> bool:
    """Whether plain data has the parts that every version's verdict has."""
    whole = isinstance(found.get("trial"), int | None) and isinstance(found.get("scores"), dict)
    tasks, floors = found.get("tasks", {}), found.get("floors", {})
    if not whole or not isinstance(tasks, dict) or not isinstance(floors, dict):
        return False
    for own in (found, *tasks.values()):
        if not isinstance(own, dict) or not isinstance(own.get("comparisons"), dict):
            return False
        for one in own["comparisons"].values():
            if not isinstance(one, dict) or not all(_is_number(one.get(n)) for n in _NUMBERS):
                return False
        if own["comparisons"] and "test" not in own["comparisons"]:
            return False
    sides = found["scores"].values()
    return all(isinstance(p, dict) and all(isinstance(s, dict) for s in p.values()) for p in sides)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _verdict(
    winner: TrialRecord | None,
    sides: dict[str, dict[str, Evaluation]],
    parts: Mapping[str, Sequence[Example]],
    objective: Objective,
) -> Verdict:
    outcomes = {
        side: {part: found[part].outcomes for part in parts} for side, found in sides.items()
    }
    last = sides["baseline" if winner is None else "winner"]
    return Verdict(
        trial=None if winner is None else winner.number,
        composition="baseline" if winner is None else winner.text,
        scores=_scores(outcomes, parts) if objective.single else _values(sides, parts),
        comparisons=_comparisons(outcomes if objective.single else pooled(sides, parts, objective)),
        columns=_columns(outcomes, parts["test"]) if objective.single and winner else {},
        truncated={part: sides["baseline"][part].truncated for part in parts},
        metric=objective.metric,
        tasks={} if objective.single else _tasks(outcomes, parts, objective),
        floors={
            part: objective.floors(last[part].scores, sides["baseline"][part].scores)
            for part in parts
            if any(goal.floor for goal in objective.goals)
        },
    )


Outcomes = dict[str, dict[str, Sequence[Outcome]]]
"""By side and part."""


def _tasks(
    outcomes: Outcomes, parts: Mapping[str, Sequence[Example]], objective: Objective
) -> dict[str, TaskVerdict]:
    """Every task by itself."""
    apart = {
        side: {part: by_task(found) for part, found in own.items()}
        for side, own in outcomes.items()
    }
    verdicts = {}
    for goal in objective.goals:
        asked = {part: [x for x in found if x.task == goal.task] for part, found in parts.items()}
        own: Outcomes = {
            side: {part: found[part][goal.task] for part in parts} for side, found in apart.items()
        }
        verdicts[goal.task] = TaskVerdict(
            goal.metric,
            goal.weight,
            _scores(own, asked),
            _comparisons(own),
            _columns(own, asked["test"]) if "winner" in own else {},
        )
    return verdicts


def pooled(
    sides: Mapping[str, Mapping[str, Evaluation]], parts: Iterable[str], objective: Objective
) -> Outcomes:
    """Outcomes whose weighted mean is the objective's value: rescaled, and weighed by task."""
    found: Outcomes = {}
    for side, evaluations in sides.items():
        found[side] = {}
        for part in parts:
            baseline = sides["baseline"][part].scores
            rescaled: list[Outcome] = []
            for task, own in by_task(evaluations[part].outcomes).items():
                goal = next(goal for goal in objective.goals if goal.task == task)
                zero, unit = 0.0, 1.0
                if objective.relative:
                    zero, unit = baseline[task], goal.unit(baseline[task])
                share = goal.weight / math.fsum(outcome.weight for outcome in own)
                rescaled += [
                    replace(o, score=(o.score - zero) / unit, weight=o.weight * share)
                    for o in own
                    if share
                ]
            found[side][part] = rescaled
    return found


def _values(
    sides: Mapping[str, Mapping[str, Evaluation]], parts: Iterable[str]
) -> dict[str, dict[str, Scores]]:
    """What the sides are worth: the objective of several tasks has no classes or predictions."""
    # What ties have earned is said task by task; their share is of all questions.
    return {
        side: {
            part: Scores(
                n=len(found[part].outcomes),
                score=found[part].score,
                log_loss=found[part].log_loss,
                balanced_accuracy=None,
                majority_baseline=None,
                top_prediction=None,
                top_share=0.0,
                tied=sum(o.tied > 1 for o in found[part].outcomes) / len(found[part].outcomes),
            )
            for part in parts
        }
        for side, found in sides.items()
    }


def _scores(
    outcomes: Outcomes, parts: Mapping[str, Sequence[Example]]
) -> dict[str, dict[str, Scores]]:
    return {
        side: {part: summarise(found[part], parts[part]) for part in parts}
        for side, found in outcomes.items()
    }


def _comparisons(outcomes: Outcomes) -> dict[str, Comparison]:
    if "winner" not in outcomes:
        return {}
    return {
        part: compare(before, outcomes["winner"][part])
        for part, before in outcomes["baseline"].items()
    }


def _columns(outcomes: Outcomes, test: Sequence[Example]) -> Columns:
    found: Columns = {}
    for column in _categories(test):
        shares = {side: breakdown(own["test"], test, column) for side, own in outcomes.items()}
        found[column] = {
            str(value): {side: shares[side][value].score for side in outcomes} | {"n": one.n}
            for value, one in shares["baseline"].items()
        }
    return found


def _categories(examples: Sequence[Example]) -> list[str]:
    """Columns that sort the examples into a few kinds."""
    names = sorted({name for example in examples for name in example.columns})
    few = []
    for name in names:
        values = {example.columns.get(name) for example in examples}
        if 1 < len(values) <= MAX_VALUES:
            few.append(name)
    return few


def read_verdict(result: dict[str, Any] | None) -> Verdict | None:
    """A result.json as a verdict; what this version does not know is left out."""
    if result is None:
        return None
    try:
        found = _known(Verdict, result)
        scores, compared = _sides_of(found["scores"]), _compared(found["comparisons"])
        tasks = {label: _task(own) for label, own in found.get("tasks", {}).items()}
        cost = found.get("collateral")
        return Verdict(
            **{
                **found,
                "scores": scores,
                "comparisons": compared,
                "tasks": tasks,
                "collateral": None if cost is None else Collateral(**_known(Collateral, cost)),
            }
        )
    except (TypeError, KeyError, AttributeError):
        return None  # another version's; the report shows the rest


def _task(result: dict[str, Any]) -> TaskVerdict:
    found = _known(TaskVerdict, result)
    scores, compared = _sides_of(found["scores"]), _compared(found["comparisons"])
    return TaskVerdict(**{"columns": {}, **found, "scores": scores, "comparisons": compared})


def _sides_of(scores: dict[str, Any]) -> dict[str, dict[str, Scores]]:
    return {
        side: {part: Scores(**_known(Scores, own)) for part, own in parts.items()}
        for side, parts in scores.items()
    }


def _compared(comparisons: dict[str, Any]) -> dict[str, Comparison]:
    return {part: Comparison(**_known(Comparison, own)) for part, own in comparisons.items()}


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}
