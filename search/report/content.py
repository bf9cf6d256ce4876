"""What a report says, gathered from a study's record: words, tables and drawn figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from search.cuts.composition import Intervention, brief
from search.phases import duration
from search.published import model_name, without_paths
from search.report.changes import Changes, find_changes
from search.report.cost import Cost, find_cost, phases_text
from search.report.frames import interventions_frame, trials_frame
from search.report.text import score_rows, score_warnings, sentence, verdict_notices
from search.study.jobs import BASELINE, TEST_BASELINE, test_name, trial_name
from search.study.outcomes import Evaluation, read_outcomes
from search.study.study_record import StudyRecord
from search.study.verdict import Verdict, read_verdict
from search.study.verdict_claim import power_notice
from tasks.errors import InputError
from tasks.metrics import shown, shown_change, shown_interval
from tasks.secrets import hide_secrets

LISTED = 100
"""Trials in the report's table, the best first."""


@dataclass(frozen=True)
class Content:
    """Everything in a report but its drawing.

    `trials`, `cuts`: see `search.report.frames`. `sides`: outcomes of baseline and winner, on test
    where it is scored, else on validation, whose name is `part`.
    """

    record: StudyRecord
    metric: str
    headline: str
    settled: bool
    tiles: list[tuple[str, str, str]]
    warnings: list[str]
    verdict: Verdict | None
    score_table: list[list[str]]
    trials: pd.DataFrame
    cuts: pd.DataFrame
    changes: Changes | None
    sides: dict[str, Evaluation]
    part: str
    cost: Cost
    configuration: str
    asked: str
    model: str
    failures: dict[str, int]
    tasks: list[list[str]]
    environment: list[tuple[str, str]] = field(default_factory=list)

    @property
    def baseline(self) -> float | None:
        """The unedited model's score on validation."""
        found = self.record.summary.baseline
        return None if found is None else found.score

    @property
    def listed(self) -> pd.DataFrame:
        """The best trials."""
        rank = self.trials["soft_score"].where(self.trials["score"].notna())
        ranked = self.trials.assign(rank=rank.fillna(self.trials["score"]))
        keys, ascending = ["feasible", "rank", "log_loss"], [False, False, True]
        ordered = ranked.sort_values(keys, ascending=ascending, kind="stable")
        return ordered.drop(columns="rank").head(LISTED)


def gather(record: StudyRecord) -> Content:
    """Read what a report needs. A study that still runs has no verdict, and no test scores."""
    metric = record.summary.objective.metric
    verdict = read_verdict(record.result)
    trials = trials_frame(record.trials)
    part, sides = _sides(record)
    baseline = record.summary.baseline
    return Content(
        record=record,
        metric=metric,
        headline=_headline(record, verdict, metric),
        settled=verdict is not None,
        tiles=_tiles(record, verdict, metric),
        warnings=record.notices + ([] if verdict is None else _warnings(verdict)),
        verdict=verdict,
        score_table=[] if verdict is None else _score_table(verdict, metric),
        trials=trials,
        cuts=interventions_frame(record.trials, None if baseline is None else baseline.score),
        changes=_changes(record),
        sides=sides,
        part=part,
        cost=find_cost(trials, getattr(record.config.search, "chunks", 1)),
        configuration=_configuration(record),
        asked=record.config.asked,
        model=model_name(record.config.model.path),
        failures=_failures(record),
        tasks=_task_table(record.result or {}),
        environment=_environment(record),
    )


def winning_cuts(record: StudyRecord) -> Sequence[Intervention]:
    """The winner's interventions, else the best trial's, else none."""
    chosen = record.summary.winner or record.summary.best
    return () if chosen is None else chosen.cuts


def _headline(record: StudyRecord, verdict: Verdict | None, metric: str) -> str:
    if verdict is not None and "test" in next(iter(verdict.scores.values()), {}):
        return sentence(verdict, metric)
    summary = record.summary
    state = f"The study has finished {summary.finished} of {summary.asked} trials"
    if summary.best is None:
        return f"{state}; none has a score yet."
    best = f"{shown(metric, summary.best.score or 0.0):.4f}"
    name = summary.best.brief or "?"
    base = summary.baseline
    than = "" if base is None else f", against {shown(metric, base.score):.4f} unedited"
    return (
        f"{state}. So far {name} is best with a {metric} of {best} on validation{than}; "
        "whether that holds is known when test is scored."
    )


def _tiles(record: StudyRecord, verdict: Verdict | None, metric: str) -> list[tuple[str, str, str]]:
    """(name, value, remark) of the few numbers that people look for first."""
    summary = record.summary
    tiles = []
    if verdict is not None and "test" in verdict.comparisons:
        found = verdict.comparisons["test"]
        tiles += [
            (f"{metric} on test", f"{shown(metric, found.baseline):.4f}", "baseline"),
            (f"{metric} on test", f"{shown(metric, found.winner):.4f}", _chosen(verdict)),
            (
                "change",
                shown_change(metric, found.difference),
                f"95 % interval {shown_interval(metric, found.low, found.high)}",
            ),
        ]
        if (cost := verdict.collateral) is not None:
            interval = f"95 % interval {cost.low:+.1%} to {cost.high:+.1%}; {cost.source}"
            tiles.append(("perplexity of general text", f"{cost.change:+.1%}", interval))
    elif summary.baseline is not None and summary.best is not None:
        tiles += [
            ("on validation", f"{shown(metric, summary.baseline.score):.4f}", "baseline"),
            (
                "best on validation",
                f"{shown(metric, summary.best.score or 0.0):.4f}",
                "the best of many is optimistic",
            ),
        ]
    counts = ", ".join(
        f"{getattr(summary, name)} {name}"
        for name in ("pruned", "failed", "infeasible", "running")
        if getattr(summary, name)
    )
    tiles.append(("trials", f"{summary.finished} of {summary.asked}", counts or "all complete"))
    if wall_s := summary.wall_s:
        tiles.append(("wall time", duration(sum(wall_s.values())), phases_text(wall_s)))
    return tiles


def _chosen(verdict: Verdict) -> str:
    return brief(verdict.composition, verdict.kept)


def _warnings(verdict: Verdict) -> list[str]:
    sides = [verdict.scores, *(task.scores for task in verdict.tasks.values())]
    found = [
        text
        for scores in sides
        for side, parts in scores.items()
        if "test" in parts
        for text in score_warnings(side, parts["test"])
    ]
    power = power_notice(verdict)
    return found + verdict_notices(verdict) + ([power] if power else [])


def _score_table(verdict: Verdict, metric: str) -> list[list[str]]:
    """Header and rows of every score by part and model; columns that nobody fills are left out."""
    rows = score_rows(verdict.scores)
    extra = list(dict.fromkeys(n for *_, s in rows for n in (*s.measures, *s.further)))
    names = ["part", "model", "n", metric, "log-loss", "balanced", "majority", "tied"]
    names += ["most common", *extra]
    table = [
        [
            part,
            side,
            str(s.n),
            f"{shown(metric, s.score):.4f}",
            _cell(s.log_loss),
            _cell(s.balanced_accuracy),
            _cell(s.majority_baseline),
            f"{s.tied:.1%}" if s.tied else "",
            "" if s.top_prediction is None else f"{s.top_prediction!r} {s.top_share:.0%}",
            *(_cell({**s.measures, **s.further}.get(name)) for name in extra),
        ]
        for part, side, s in rows
    ]
    kept = [i for i in range(len(names)) if any(row[i] for row in table)]
    return [[row[i] for i in kept] for row in [names, *table]]


def _task_table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows of every task of several on test; empty for a study of one."""
    rows = []
    for label, task in (result.get("tasks") or {}).items():
        metric, scores = task.get("metric", "score"), task.get("scores", {})
        row = [label, metric, f"{task.get('weight', 1):g}"]
        for side in ("baseline", "winner"):
            own = scores.get(side, {}).get("test")
            row.append("" if own is None else f"{shown(metric, own['score']):.4f}")
        found = task.get("comparisons", {}).get("test")
        if found is None:
            row += ["", ""]
        else:
            row.append(shown_change(metric, found["difference"]))
            row.append(shown_interval(metric, found["low"], found["high"]))
        rows.append(row)
    head = ["task", "metric", "weight", "baseline", "winner", "change", "95 % interval"]
    return [head, *rows] if rows else []


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _changes(record: StudyRecord) -> Changes | None:
    try:
        return find_changes(record, None, None)
    except (InputError, KeyError, ValueError):
        return None  # no winner yet, or its outcomes are not at hand


def _sides(record: StudyRecord) -> tuple[str, dict[str, Evaluation]]:
    """Baseline and winner on test where it is scored, else on validation."""
    winner = record.summary.winner
    for part in ("test", "validation"):
        test = part == "test"
        wanted = {"baseline": (TEST_BASELINE if test else BASELINE, "")}
        if winner is not None:
            name = test_name(winner.number) if test else trial_name(winner.number)
            wanted["winner"] = (name, winner.effect)
        found = {
            side: read_outcomes(record.folder, name, record.identity.study_id, effect)
            for side, (name, effect) in wanted.items()
        }
        known = {side: evaluation for side, evaluation in found.items() if evaluation is not None}
        if len(known) == len(wanted):
            return part, known
    return "validation", {}


def _configuration(record: StudyRecord) -> str:
    """study.yaml without the folders of the machine that it lies on."""
    public = _named(record.config.model_dump(mode="json"))
    public["model"]["path"] = model_name(record.config.model.path)
    text = yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=float("inf"))
    return hide_secrets(text, record.config.storage, record.config.factors)


def _named(value: Any) -> Any:
    """`value` with the name of a file or folder for each path, however deep it lies."""
    if isinstance(value, dict):
        return {key: _named(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def _failures(record: StudyRecord) -> dict[str, int]:
    """How often each reason occurred; reasons may name files."""
    config = record.config
    places = [config.model.path, config.factors, str(record.folder.resolve()), str(Path.home())]
    places += [goal.data for goal in config.goals.values() if goal.data]
    local = [place for place in places if place.startswith("/")]
    reasons = record.summary.failures.items()
    return {without_paths(reason, local): count for reason, count in reasons}


def _environment(record: StudyRecord) -> list[tuple[str, str]]:
    identity = record.identity
    digests = ("weights", "checkpoint", "examples", "settings")
    return [
        ("study", identity.study_id),
        ("begun", identity.created),
        *((name, version) for name, version in identity.versions.items()),
        *((f"digest of {name}", getattr(identity, name, "")[:16]) for name in digests),
    ]
