"""The model card: what was cut, what it gained, how to make it again."""

from __future__ import annotations

from pathlib import Path

import yaml
from optuna.trial import FrozenTrial

from search.composition import Composition
from search.report.text import floor_sentence
from search.study.goals import FloorCheck
from search.study.record import StudyRecord
from search.study.study import SCORES
from tasks.metrics import shown, shown_change, shown_interval


def model_card(record: StudyRecord, trial: FrozenTrial) -> str:
    """README.md of an exported model, with the hub's metadata block."""
    path = record.config.model.path
    metadata: dict[str, object] = {"library_name": "transformers", "tags": ["laser", "low-rank"]}
    if not Path(path).is_absolute():
        metadata["base_model"] = path
    front = yaml.safe_dump(metadata, sort_keys=False)
    composition = Composition.parse(trial.user_attrs["composition"].split())
    rows = "\n".join(
        f"| {i.matrix} | {i.kind} | {i.rule.name} {i.rule.value:g} |"
        for i in composition.interventions
    )
    versions = ", ".join(f"{name} {value}" for name, value in record.identity.versions.items())
    return f"""---
{front}---

# {Path(path).name} after LASER

Weight matrices of `{path}` replaced by truncated SVDs; nothing was trained.
Found by [laser-search](https://pypi.org/project/laser-search/), a search over layer-selective rank
reductions (Sharma, Ash, Misra: The Truth is in There, ICLR 2024).

| matrix | kind | kept |
|---|---|---|
{rows}

## Results

Task `{record.config.asked}`; trial {trial.number} of a study that evaluated
{record.summary.finished} compositions on the validation part.

{_results(record, trial)}

The choice was made on validation, so the validation figure of the best of many trials is
optimistic; test was not used for it.

Versions: {versions}.
"""


def _results(record: StudyRecord, trial: FrozenTrial) -> str:
    objective = record.summary.objective
    rows = [(objective.metric, objective.metric, "")]
    if not objective.single:
        rows += [(f"{g.task} ({g.metric})", g.metric, g.task) for g in objective.goals]
    result = record.result
    if result is not None and result["trial"] != trial.number:
        result = None  # test was scored for another trial
    lines = ["| metric | part | baseline | this model |", "|---|---|---|---|"]
    for name, metric, task in rows:
        values = {"validation": _validation(record, trial, task)}
        if result is not None:
            test = (result["tasks"][task] if task else result)["comparisons"]["test"]
            values["test"] = (test["baseline"], test["winner"])
        for part, pair in values.items():
            cells = ("" if x is None else f"{shown(metric, x):.4f}" for x in pair)
            lines.append(f"| {name} | {part} | {' | '.join(cells)} |")
    if result is not None:
        test = result["comparisons"]["test"]
        lines.append("")
        lines.append(
            f"Change of {objective.metric} on test "
            f"{shown_change(objective.metric, test['difference'])}, 95 % interval "
            f"{shown_interval(objective.metric, test['low'], test['high'])} "
            f"({test['test']}, p = {test['p_value']:.2g})."
        )
        floors = result.get("floors", {}).get("test", [])
        lines += [f"\nIt {floor_sentence(FloorCheck(**check))}." for check in floors]
    return "\n".join(lines)


def _validation(
    record: StudyRecord, trial: FrozenTrial, task: str
) -> tuple[float | None, float | None]:
    """Scores of baseline and trial on validation: the value, or one of several tasks'."""
    baseline = record.summary.baseline
    if not task:
        return None if baseline is None else baseline.score, trial.value
    own = trial.user_attrs.get(SCORES, {})
    return None if baseline is None else baseline.scores.get(task), own.get(task)
