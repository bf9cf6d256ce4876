"""The model card: what was cut, what it gained, how to make it again."""

from __future__ import annotations

from pathlib import Path

import yaml
from optuna.trial import FrozenTrial

from search.composition import Composition
from search.study.record import StudyRecord


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
    lines = ["| part | baseline | this model |", "|---|---|---|"]
    baseline = record.summary.baseline
    before = "" if baseline is None else f"{baseline.score:.4f}"
    lines.append(f"| validation | {before} | {trial.value:.4f} |")
    result = record.result
    if result is not None and result["trial"] == trial.number:
        test = result["comparisons"]["test"]
        lines.append(f"| test | {test['baseline']:.4f} | {test['winner']:.4f} |")
        lines.append("")
        lines.append(
            f"Difference on test {test['difference']:+.4f}, 95 % interval {test['low']:+.4f} to "
            f"{test['high']:+.4f} ({test['test']}, p = {test['p_value']:.2g})."
        )
    return "\n".join(lines)
