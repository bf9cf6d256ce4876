"""The model card: what was cut, what it gained, how to make it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from search.cuts.composition import Composition
from search.export.exported_trial import support
from search.export.same_output import SameOutput
from search.export.verify import Verification
from search.published import data_name, hub_name, model_name
from search.study.collateral import Collateral
from search.study.jobs import trial_name
from search.study.objective import FloorCheck, floor_sentence
from search.study.outcomes import read_outcomes
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from tasks.comparison import compare
from tasks.metrics import shown, shown_change, shown_interval
from tasks.scoring import by_task

PIPELINES = {
    "causal": "text-generation",
    "masked": "fill-mask",
    "classifier": "text-classification",
    "seq2seq": "text2text-generation",
}


@dataclass(frozen=True)
class Contents:
    """What an export holds, for its card.

    `load`: Python that loads it. `rows`: what became of each matrix. `notes`: limits of this
    format. `digests`: by name. `command`: what made it. `parameters`: of the base and of this.
    `library`: what loads it.
    """

    format: str
    head: str
    load: str
    rows: dict[str, str]
    notes: list[str]
    digests: dict[str, str]
    command: str
    parameters: tuple[int, int]
    library: str = "transformers"


def model_card(
    record: StudyRecord, trial: TrialRecord, contents: Contents, verdict: Verification | None
) -> str:
    """README.md of an export, with the hub's metadata block."""
    return f"""---
{metadata(record.config.model.path, contents, _eval_results(record, trial, contents))}
---

{_about(record, trial, contents)}
## Results

{_protocol(record, trial)}

{_results(record, trial)}

{_choice(record, trial)}

{verified_text(verdict)}

## Limits

{bullets([*contents.notes, *LIMITS])}

{origin(contents, record.identity.versions)}"""


def _choice(record: StudyRecord, trial: TrialRecord) -> str:
    """On what the trial was chosen."""
    result = record.result or {}
    if result.get("finalists") and result.get("trial") == trial.number:
        return (
            f"It was chosen among {result['finalists']} finalists on the confirmation part,\n"
            "which no trial had seen; its validation figure is the best of many and optimistic.\n"
            "Test was not used for the choice."
        )
    return (
        "The choice was made on validation, so the validation figure of the best of many trials\n"
        "is optimistic; test was not used for it."
    )


def _about(record: StudyRecord, trial: TrialRecord, contents: Contents) -> str:
    name, digest = model_name(record.config.model.path), contents.digests.get("base tensors", "")
    return f"""\
# {short_name(name)} after LASER ({contents.format})

{_standing(record, trial)}

Weight matrices of `{name}`, whose tensors have the digest `{digest[:16]}`, replaced by truncated
SVDs; nothing was trained. Found by {_program(record)}, a search over layer-selective rank
reductions (Sharma, Ash, Misra: The Truth is in There, ICLR 2024).

{cuts_and_use(trial.composition, contents)}

"""


def cuts_and_use(composition: Composition, contents: Contents) -> str:
    """The table of the cuts, the parameters, and how the export is loaded."""
    rows = "\n".join(
        f"| {i.matrix} | {i.kind} | {i.rule.name} {i.rule.value:g} | "
        f"{contents.rows.get(str(i.matrix), '')} |"
        for i in composition.interventions
    )
    before, after = contents.parameters
    return f"""\
| matrix | kind | kept | in this export |
|---|---|---|---|
{rows}

{before:,} parameters in the base, {after:,} here.

## Use

```python
{contents.load}
```"""


def _standing(record: StudyRecord, trial: TrialRecord) -> str:
    """The first sentence: whether what this model was chosen for holds on test."""
    result = record.result or {}
    if result.get("trial") != trial.number:
        return "**Test was not scored for this model**: what it gains was seen on validation alone."
    if (kept := result.get("kept")) is not None:
        return (
            f"It keeps {kept:.1%} of the parameters of the {len(trial.cuts)} matrices below and "
            "those beside them that were searched; what that costs on test questions, which the "
            "search never saw, stands under Results."
        )
    why = support(record, trial)
    if why:
        return f"**Test does not support this model as a gain**: {why}."
    return "Its gain holds on test questions, which the search never saw."


def origin(contents: Contents, versions: Mapping[str, str]) -> str:
    """The last section: digests, the command, and the versions that ran it."""
    digests = "\n".join(f"| {name} | `{value}` |" for name, value in contents.digests.items())
    used = ", ".join(f"{name} {value}" for name, value in versions.items())
    return f"""\
## Origin

| what | digest |
|---|---|
{digests}

Made by `{contents.command}` with {used}.
"""


LIMITS = (
    "The figures hold for this task and its split; other abilities were not measured and may have "
    "suffered.",
    "Whatever the base model does wrong, and its licence, hold for this model too.",
)


def metadata(path: str, contents: Contents, results: list[EvalResult] | None = None) -> str:
    """The hub's metadata block of an export of the model at `path`."""
    return ModelCardData(
        library_name=contents.library,
        tags=["laser", "low-rank", "laser-search", contents.format],
        pipeline_tag=PIPELINES.get(contents.head),
        base_model=hub_name(path),
        model_name=f"{short_name(model_name(path))}-laser",
        eval_results=results,
    ).to_yaml()


def _eval_results(record: StudyRecord, trial: TrialRecord, contents: Contents) -> list[EvalResult]:
    return [
        _eval_result(record, contents, row, row.after)
        for row in _rows(record, trial)
        if row.after is not None
    ]


def _eval_result(record: StudyRecord, contents: Contents, row: _Row, score: float) -> EvalResult:
    """One value for the hub, which makes an entry of those of one data set and split."""
    asked = row.task or record.config.asked
    goal = record.config.goals.get(row.task)
    source = data_name(goal.data) if goal is not None else None
    public = source.partition(":")[0] if source and "/" in source and "://" not in source else None
    label = f"{row.task}, " if row.task else ""
    return EvalResult(
        task_type=PIPELINES.get(contents.head, "other"),
        dataset_type=public or re.sub(r"[^\w./:-]+", "-", asked),
        dataset_name=f"{asked} ({row.part})",
        dataset_config=row.task or None,
        dataset_split=row.part,
        metric_type=row.metric,
        metric_name=f"{row.metric} ({label}{row.part})",
        metric_value=round(float(shown(row.metric, score)), 6),
    )


def _program(record: StudyRecord) -> str:
    return f"laser-search {record.identity.versions.get('laser-search', '')}".strip()


def short_name(name: str) -> str:
    """A model's name without its owner's."""
    return name.rpartition("/")[2]


def _protocol(record: StudyRecord, trial: TrialRecord) -> str:
    config, summary = record.config, record.summary
    split = config.split
    return (
        f"Asked: {config.asked}; validation is {split.validation:g} of the examples (protocol "
        f"{split.protocol}, seed {split.seed}), the rest is test. Trial {trial.number} of a study "
        f"that evaluated {summary.finished} compositions on validation with strategy "
        f"{config.search.strategy}, seed {config.search.seed}."
    )


@dataclass(frozen=True)
class _Row:
    """One metric on one part: scores of baseline and trial, and their comparison, if any.

    `task`: of several the one that is measured, empty for the objective.
    """

    task: str
    name: str
    metric: str
    part: str
    before: float | None
    after: float | None
    comparison: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        """A row of the table of results."""
        cells = (
            "" if x is None else f"{shown(self.metric, x):.4f}" for x in (self.before, self.after)
        )
        change = p_value = ""
        if (found := self.comparison) is not None:
            change = (
                f"{shown_change(self.metric, found['difference'])}, "
                f"{shown_interval(self.metric, found['low'], found['high'])}"
            )
            p_value = f"{found['p_value']:.2g} ({found['test']})"
        return f"| {self.name} | {self.part} | {' | '.join(cells)} | {change} | {p_value} |"


def _rows(record: StudyRecord, trial: TrialRecord) -> list[_Row]:
    """The objective and, where there are several, every task, on each part that was scored."""
    objective, result = record.summary.objective, record.result
    names = [("", objective.metric, objective.metric)]
    if not objective.single:
        names += [(g.task, f"{g.task} ({g.metric})", g.metric) for g in objective.goals]
    rows = []
    for task, name, metric in names:
        if result is not None and result["trial"] == trial.number:
            for part, found in (result["tasks"][task] if task else result)["comparisons"].items():
                rows.append(
                    _Row(task, name, metric, part, found["baseline"], found["winner"], found)
                )
        else:  # test was scored for another trial, or not yet
            rows.append(_validation(record, trial, task, name, metric))
    return rows


def _validation(record: StudyRecord, trial: TrialRecord, task: str, name: str, metric: str) -> _Row:
    """Scores of baseline and trial on validation: the value, or one of several tasks'."""
    baseline = record.summary.baseline
    before = None if baseline is None else baseline.score
    after = trial.score
    if task:
        before = None if baseline is None else baseline.scores.get(task)
        after = trial.scores.get(task)
    elif not record.summary.objective.single:
        return _Row(task, name, metric, "validation", before, after)
    study_id, effect = record.identity.study_id, trial.effect
    found = read_outcomes(record.folder, trial_name(trial.number), study_id, effect)
    if found is None or baseline is None:
        return _Row(task, name, metric, "validation", before, after)
    pair = [by_task(one.outcomes).get(task, []) for one in (baseline, found)]
    comparison = asdict(compare(pair[0], pair[1]))
    return _Row(task, name, metric, "validation", before, after, comparison)


def _results(record: StudyRecord, trial: TrialRecord) -> str:
    lines = [
        "| metric | part | baseline | this model | change, 95 % interval | p |",
        "|---|---|---|---|---|---|",
        *map(str, _rows(record, trial)),
    ]
    result = record.result
    if result is not None and result["trial"] == trial.number:
        floors = result.get("floors", {}).get("test", [])
        lines += [f"\nIt {floor_sentence(FloorCheck(**check))}." for check in floors]
        if cost := result.get("collateral"):
            lines.append(f"\nOn {Collateral(**cost).sentence()}.")
    return "\n".join(lines)


def verified_text(verdict: Verification | SameOutput | None) -> str:
    """What came of loading an export again, in words, with its speed."""
    if verdict is None:
        return "This export was not verified (--no-verify)."
    words = verdict.sentence()
    speed = verdict.speed
    if speed:
        ratio = speed["dense_s"] / speed["factored_s"]
        words += (
            f".\n\nForward pass, 4 rows of 64 tokens: {speed['factored_s'] * 1e3:.2f} ms factored, "
            f"{speed['dense_s'] * 1e3:.2f} ms dense, {ratio:.2f} times as fast on the machine that "
            "made this"
        )
    return words[:1].upper() + words[1:] + "."


def bullets(lines: list[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def healed_card(record: StudyRecord, found: dict[str, Any], verdict: Verification | None) -> str:
    """README.md of a model that was trained after the cut; `found` is healing.json."""
    path, recipe, size = record.config.model.path, found["recipe"], found["parameters"]
    name, train = model_name(path), data_name(found["train"])
    data = ModelCardData(
        library_name="transformers",
        tags=["laser", "low-rank", "laser-search", "healed"],
        base_model=hub_name(path),
    )
    rows = "\n".join(
        f"| {part} | {found['scores']['base'][part]:.4f} | {found['scores']['cut'][part]:.4f} | "
        f"{found['scores']['healed'][part]:.4f} | {change['difference']:+.4f}, "
        f"{change['low']:+.4f} to {change['high']:+.4f} |"
        for part, change in found["comparisons"].items()
    )
    return f"""---
{data.to_yaml()}
---

# {short_name(name)} after LASER and training

`{found["composition"]}` applied to `{name}`, whose files have the digest
`{record.identity.checkpoint[:16]}`, then {recipe["steps"]} steps of training ({recipe["method"]},
learning rate {recipe["learning_rate"]:g}, batch {recipe["batch"]}, seed {recipe["seed"]}) on
{found["examples"]} examples of `{train}`; {found["left_out"]} that validation or test ask were left
out. Made with {_program(record)}.

| part | base | after the cut | after training | change by training, 95 % interval |
|---|---|---|---|---|
{rows}

{size["base"]:,} parameters in the base, {size["healed"]:,} here, {size["trained"]:,} trained.

{verified_text(verdict)}

## Limits

{bullets(list(LIMITS))}
"""
