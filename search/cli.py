"""Commands that need no cluster: evaluate, tasks, status, compare; and those of other rooms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from search import weight_commands
from search.export import commands as exports
from search.options import DTypeName, HeadName, JsonFlag, PresetName, Revision, StudyFolder
from search.phases import reporting
from search.preset_commands import evaluate_preset, presets
from search.report import commands as report_commands
from tasks.errors import InputError
from tasks.metrics import shown
from tasks.printable import printable
from tasks.secrets import hide_secrets

if TYPE_CHECKING:
    from search.study.study_record import StudyRecord
    from search.study.summary import Summary

MOST_REASONS = 5
"""Reasons of failure that status lists."""


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(evaluate)
    app.command()(status)
    app.command("tasks")(list_tasks)
    app.command()(presets)
    app.command("kinds")(list_kinds)
    app.command("formats")(list_formats)
    app.command()(compare)
    app.command()(schema)
    exports.mount(app)
    app.command()(weight_commands.matrices)
    app.add_typer(weight_commands.factors, name="factors")
    report_commands.mount(app)


def evaluate(
    context: typer.Context,
    model: Annotated[Optional[str], typer.Argument(help="Local folder or hub id.")] = None,  # noqa: UP045
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The task, for instance sst2 or jsonl."),
    ] = None,
    data: Annotated[Optional[str], typer.Option(help="Local file or hub id.")] = None,  # noqa: UP045
    split: Annotated[
        Literal["all", "validation", "test"],
        typer.Option(help="Which part of the examples to score."),
    ] = "all",
    intervention: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="MATRIX=RHO, '*.mlp=0.1', or a file of them; may be repeated."),
    ] = None,
    lname: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Matrices in the notation of LASER's code: fc_in, mlp, attn, all, dont, ..."
        ),
    ] = None,
    lnum: Annotated[
        int | None, typer.Option(help="Layer in the notation of LASER's code; -1: all.")
    ] = None,
    rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Rate in the notation of LASER's code, 10 (1 - rho): 9 keeps a tenth of the ranks."
        ),
    ] = None,
    fused: Annotated[
        Literal["named", "whole"],
        typer.Option(
            help="What --lname cuts in a fused weight: that part, or all, as LASER's code does."
        ),
    ] = "named",
    products: Annotated[
        Literal["exact", "svd-lowrank"],
        typer.Option(
            help="exact: the best rank r; svd-lowrank: the randomised one of LASER's code "
            "(docs/paper.md)."
        ),
    ] = "exact",
    head: HeadName = "auto",
    validation: Annotated[float, typer.Option(help="Fraction of the validation part.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    factors: Annotated[
        str,
        typer.Option(envvar="LASER_SEARCH_FACTORS", help="The factor cache, a folder or URL."),
    ] = "factors",
    protocol: Annotated[
        Literal["auto", "groups", "paper"],
        typer.Option(help="How the examples are split (docs/configuration.md)."),
    ] = "auto",
    scoring: Annotated[
        Literal["default", "paper"], typer.Option(help="paper: score as the paper's code does.")
    ] = "default",
    num_fewshot: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Solved examples per prompt, for lm_eval tasks."),
    ] = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Use only the first N examples of each part, for lm_eval tasks."),
    ] = None,
    dtype: DTypeName = "auto",
    revision: Revision = None,
    data_revision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Branch, tag or commit of a hub data set."),
    ] = None,
    chat_template: Annotated[
        bool,
        typer.Option(
            "--chat-template",
            help="Ask each question as a user message, in the model's chat template.",
        ),
    ] = False,
    preset: PresetName = None,
    calibration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Texts for whitened cuts: a file or hub data set, without the scored questions."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a model, and the same model after interventions.

    With --preset NAME, scores a published model, task and cut, and compares the scores with the
    published ones; MODEL and --data may give other copies.

    Example: laser-search evaluate ./bert-sst2 --task sst2 --data dev.tsv --intervention 1.fc_in=0.1
    """
    if preset is not None:
        evaluate_preset(
            context,
            preset,
            model=model,
            data=data,
            data_revision=data_revision,
            revision=revision,
            factors=factors,
            products=products,
            dtype=dtype,
            as_json=as_json,
        )
        return
    if model is None or task is None:
        raise InputError("give a model and a task (--task), or a published result with --preset")
    with reporting() as phases:
        phases.enter("loading the program")
        from search.export.intervention_file import spelled_out
        from search.model import ModelSource
        from search.sections import SplitConfig, TaskConfig
        from search.standalone import CutRequest, evaluate_compositions

        found = evaluate_compositions(
            source=ModelSource(model, revision, head, dtype, chat_template=chat_template),
            task=TaskConfig(
                name=task,
                data=data,
                revision=data_revision,
                scoring=scoring,
                num_fewshot=num_fewshot,
                limit=limit,
            ),
            part=split,
            split=SplitConfig(validation=validation, seed=seed, protocol=protocol),
            cuts=CutRequest(
                tuple(spelled_out(intervention or ())),
                _triple(lname, lnum, rate, intervention),
                products,
                fused,
                calibration,
            ),
            factors=factors,
            phases=phases,
        )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        found.print()


def _triple(
    lname: str | None, lnum: int | None, rate: float | None, intervention: list[str] | None
) -> tuple[str, int, float] | None:
    """LASER's three options, which go together and with no other."""
    if lname is None and lnum is None and rate is None:
        return None
    if intervention:
        raise InputError(
            "--intervention and --lname, --lnum, --rate both define interventions; use one of the "
            "two"
        )
    if lname is None or lnum is None or rate is None:
        given = {"--lname": lname, "--lnum": lnum, "--rate": rate}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise InputError(
            f"{missing} is missing; LASER's --lname, --lnum and --rate are used together"
        )
    return lname, lnum, rate


def list_tasks(as_json: JsonFlag = False) -> None:
    """List every task: its name, the heads that can answer it, and what it asks.

    Example: laser-search tasks
    """
    from tasks.registry import all_tasks, describe

    found = [
        {"name": t.name, "metric": t.metric, "heads": sorted(t.heads), "about": describe(t)}
        for t in all_tasks()
    ]
    _print_list(found, "heads", as_json)


def list_kinds(as_json: JsonFlag = False) -> None:
    """List every kind of cut: its name, what it does, and the rank rules that it takes.

    Example: laser-search kinds
    """
    from search.cuts.kinds.registry import all_kinds

    found = [
        {"name": k.name, "rules": list(k.rules if k.fixed is None else ()), "about": k.about}
        for k in all_kinds()
    ]
    _print_list(found, "rules", as_json)


def list_formats(as_json: JsonFlag = False) -> None:
    """List every format of export: its name, what it is, and what loads it.

    Example: laser-search formats
    """
    from search.export.formats import all_formats

    found = [{"name": f.name, "library": [f.library], "about": f.about} for f in all_formats()]
    _print_list(found, "library", as_json)


def _print_list(found: list[dict[str, Any]], further: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(len(one["name"]) for one in found)
    for one in found:
        listed = f" ({', '.join(one[further])})" if one[further] else ""
        typer.echo(f"{one['name']:<{width}}  {one['about']}{listed}")


def schema() -> None:
    """Print the JSON schema of study.yaml, for completion and checks in editors.

    Example: laser-search schema > study.schema.json
    """
    from search.config import StudyConfig

    typer.echo(json.dumps(StudyConfig.model_json_schema(), indent=2))


def status(folder: StudyFolder, as_json: JsonFlag = False) -> None:
    """Show how far a study is and what it has found.

    Example: laser-search status ./my-study --json
    """
    from search.leftovers import find_leftovers
    from search.report.standing import standing_facts
    from search.study.study_record import StudyRecord

    record = StudyRecord.read(folder)
    left = [one.text() for one in find_leftovers()]
    if as_json:
        facts = {**_status(record), **standing_facts(folder, record.summary)}
        typer.echo(json.dumps({**facts, "left_behind": left}, indent=2))
        return
    _say(record)
    for text in left:
        typer.echo(f"left behind: {text}; the next launch or resume here removes it")


def _say(record: StudyRecord) -> None:
    """Where a study stands, in plain lines."""
    from search.report.standing import standing
    from search.report.text import front_lines, result_lines

    summary = record.summary
    typer.echo(f"study {record.identity.study_id} started {record.identity.created}")
    typer.echo(f"trials: {summary.finished} of {summary.asked} finished")
    for notice in summary.shortfall(record.config.search.trials) + record.notices:
        typer.echo(f"  note: {notice}")
    for name in ("complete", "pruned", "failed", "running"):
        typer.echo(f"  {name}: {getattr(summary, name)}")
    if summary.infeasible:
        typer.echo(f"  complete, but below a floor: {summary.infeasible}")
    for line in _failures(summary):
        typer.echo(f"  {line}")
    for line in standing(record.folder, summary):
        typer.echo(line)
    if summary.baseline is not None:
        typer.echo(f"baseline: {summary.baseline_text} on validation")
    if summary.best is not None:
        trial = summary.best
        found = f"{summary.best_text} on validation, {trial.brief}"
        typer.echo(f"best: {found} (trial {trial.number})")
    lines = front_lines(summary)
    if record.result is not None and record.result["comparisons"]:
        lines += result_lines(record.result, summary.objective)
    if lines:
        typer.echo("\n".join(lines))


def _failures(summary: Summary) -> list[str]:
    """What went wrong, by kind and by reason."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failure_kinds.items())
    lines = [f"failed by kind: {kinds}"] if len(summary.failure_kinds) > 1 else []
    reasons = list(summary.failures.items())
    lines += [
        f"failed {count}x: {printable(hide_secrets(reason))}"
        for reason, count in reasons[:MOST_REASONS]
    ]
    if (more := len(reasons) - MOST_REASONS) > 0:
        lines.append(f"and {more} other reasons; status --json has them all")
    return lines


def _status(record: StudyRecord) -> dict[str, Any]:
    from search.study.disputes import disputed_numbers

    summary = record.summary
    best = summary.best
    counts = ("asked", "finished", "complete", "pruned", "failed", "running", "infeasible")
    return {
        "study": record.identity.study_id,
        "created": record.identity.created,
        **{name: getattr(summary, name) for name in counts},
        "failures": {hide_secrets(why): count for why, count in summary.failures.items()},
        "failure_kinds": summary.failure_kinds,
        "wall_s": dict(summary.wall_s),
        "disputed": disputed_numbers(record.trials),
        "notices": summary.shortfall(record.config.search.trials) + record.notices,
        "baseline": None if summary.baseline is None else summary.baseline.score,
        "best": None
        if best is None
        else {
            "trial": best.number,
            "score": best.score,
            "log_loss": best.log_loss,
            "soft_score": best.soft_score,
            "composition": best.text,
        },
        "front": [
            {
                "trial": trial.number,
                "score": trial.score,
                "kept": trial.kept,
                "composition": trial.text,
            }
            for trial in summary.front
        ],
        "budgets": [
            {
                "budget": share,
                "trial": t.number,
                "score": t.score,
                "kept": t.kept,
                "composition": t.text,
            }
            for share, t in summary.by_share.items()
        ],
        "tasks": _tasks(record),
        "result": record.result,
    }


def _tasks(record: StudyRecord) -> dict[str, Any]:
    """Every task in its own metric, on validation, and the text that a limit is held to."""
    summary = record.summary
    found: dict[str, Any] = {}
    sides: dict[str, Mapping[str, float]] = {"baseline": {}, "best": {}}
    if summary.baseline is not None:
        sides["baseline"] = {"": summary.baseline.score, **summary.baseline.scores}
    if summary.best is not None:
        sides["best"] = {"": summary.best.values[0], **summary.best.scores}
    for goal in summary.objective.held:
        values = {
            side: shown(goal.metric, own[goal.task])
            for side, own in sides.items()
            if goal.task in own
        }
        found[goal.task or record.config.asked] = {
            "metric": goal.metric,
            "weight": goal.weight,
            **values,
        }
    return found


def compare(
    folder: StudyFolder,
    by: Annotated[Optional[str], typer.Option(help="A column of the data.")] = None,  # noqa: UP045
    part: Annotated[
        Optional[Literal["validation", "test"]],  # noqa: UP045
        typer.Option(help="Which questions; test where it is scored."),
    ] = None,
    trial: Annotated[Optional[int], typer.Option(help="The trial; by default the winner.")] = None,  # noqa: UP045
    task: Annotated[Optional[str], typer.Option(help="One of several tasks, by label.")] = None,  # noqa: UP045
    examples: Annotated[int, typer.Option(min=0, help="Questions of each kind to show.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Show what the winner fixed and what it broke, with examples, and by a column of the data.

    Example: laser-search compare ./my-study --by relation
    """
    from search.report.changes import find_changes, print_changes
    from search.study.study_record import StudyRecord
    from search.terminal import Terminal

    found = find_changes(StudyRecord.read(folder), part, by, trial, task)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print_changes(Terminal(), found, examples)
