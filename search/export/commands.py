"""Commands that write models: export, cut, apply, heal."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from search.cuts.composition import brief
from search.options import DTypeName, HeadName, JsonFlag, PresetName, Revision, StudyFolder
from search.phases import reporting
from tasks.base import HeadChoice
from tasks.errors import InputError

if TYPE_CHECKING:
    from search.export.cut import WrittenCut
    from search.export.heal import Healing
    from search.export.run import Wish
    from search.study.study_record import StudyRecord
    from search.study.trials import TrialRecord

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the contents of the folder.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not load and check the result.")]
FormatName = Annotated[
    str,
    typer.Option("--format", help="dense (any program loads it), factored, patch, recipe, lora."),
]
Push = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="REPO", help="Upload it to this hub repository once verified; a new one is private."
    ),
]


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(export)
    app.command()(cut)
    app.command()(apply)
    app.command()(heal)


def export(
    folder: StudyFolder,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    form: FormatName = "dense",
    trial: Annotated[Optional[int], typer.Option(help="The trial; by default the winner.")] = None,  # noqa: UP045
    push: Push = None,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Export even if test shows no clear gain.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the best composition: a model that transformers loads, or a smaller form of it.

    It is then loaded in a fresh process and asked the trial's questions; exit code 1 if an answer
    differs.

    Example: laser-search export ./my-study --out ./my-model --format factored
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from search.export.exported_trial import check_supported, choose_trial
        from search.export.run import Wish, export, export_words
        from search.study.study_record import StudyRecord

        record = StudyRecord.read(folder)
        chosen = choose_trial(record, trial)
        if not anyway:
            check_supported(record, chosen)
        wish = Wish(out, form, overwrite, not no_verify, export_words(folder, out, form, trial))
        verdict = export(record, chosen, wish, phases)
    composition = chosen.text
    agrees = verdict is None or verdict.agrees
    address = None
    if not as_json:
        typer.echo(f"{out}: {chosen.brief} (trial {chosen.number}, {form})")
        if verdict is not None:
            typer.echo(verdict.sentence())
    if push is not None and agrees:
        from search.export.hub import push_folder

        address = push_folder(out, push)
        if not as_json:
            typer.echo(f"uploaded: {address}")
    if as_json:
        facts = {"out": str(out), "format": form, "trial": chosen.number}
        checked = None if verdict is None else asdict(verdict) | {"agrees": verdict.agrees}
        _print_json(facts | {"composition": composition, "verdict": checked, "uploaded": address})
    if not agrees:
        typer.echo(f"the files stay in {out}", err=True)
        raise typer.Exit(1)


def cut(
    out: Annotated[Path, typer.Option(help="A new folder.")],
    model: Annotated[Optional[str], typer.Argument(help="Local folder or hub id.")] = None,  # noqa: UP045
    intervention: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="MATRIX=RHO, '*.attn=rank:384', or a file of them; may be repeated."),
    ] = None,
    form: FormatName = "dense",
    factors: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A factor cache to use; by default the SVDs are not kept."),
    ] = None,
    calibration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Texts for whitened cuts: a file or hub data set."),
    ] = None,
    head: HeadName = "auto",
    dtype: DTypeName = "auto",
    revision: Revision = None,
    preset: PresetName = None,
    push: Push = None,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a model with a cut that is already known, without a study.

    With --preset NAME, writes a published cut; MODEL may give another copy of the model.

    The result is then loaded in a fresh process, and its output on a few texts is compared with
    that of the model edited in memory; exit code 1 if it differs. Nothing is searched or scored.

    Example: laser-search cut openai-community/gpt2 --intervention 11.fc_in=0.01 --out ./my-model
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from search.export.cut import BY_HAND, cut, cut_words
        from search.export.intervention_file import spelled_out
        from search.export.run import Wish
        from search.model import ModelSource

        texts, named, chosen = spelled_out(intervention or []), BY_HAND, head
        if preset is not None:
            model, texts, named, chosen = _of_preset(preset, model, texts, head)
        if model is None:
            raise InputError("give a model, or a published cut with --preset")
        wish = Wish(out, form, overwrite, not no_verify, cut_words(model, texts, out, form))
        source = ModelSource(model, revision, chosen, dtype)
        done = cut(source, texts, wish, factors, named, phases, calibration)
    _end_of_cut(done, wish, push, as_json)


def _of_preset(
    name: str, model: str | None, texts: list[str], head: HeadChoice
) -> tuple[str, list[str], str, HeadChoice]:
    """Model, interventions, who named them, and head. Raises InputError."""
    from search.presets import get_preset

    preset = get_preset(name)
    if texts:
        raise InputError("--preset and --intervention both define the cut; use only one of them")
    cuts = list(preset.checked_interventions())
    chosen: Any = preset.head if head == "auto" else head
    return preset.checked_model(model), cuts, f"published ({preset.about})", chosen


def _end_of_cut(done: WrittenCut, wish: Wish, push: str | None, as_json: bool) -> None:
    """Say what was written and upload it if it is as it should be; exit code 1 if it is not."""
    verdict = done.verdict
    agrees, address = verdict is None or verdict.agrees, None
    if push is not None and agrees:
        from search.export.hub import push_folder

        address = push_folder(wish.out, push)
    before, after = done.parameters
    if as_json:
        checked = None if verdict is None else asdict(verdict) | {"agrees": verdict.agrees}
        facts = {"out": str(wish.out), "format": wish.format, "composition": str(done.composition)}
        sizes = {"base": before, "here": after, "thin": done.thin_parameters}
        _print_json(facts | {"parameters": sizes, "verdict": checked, "uploaded": address})
    else:
        typer.echo(f"{wish.out}: {brief(str(done.composition))} ({wish.format})")
        thin = f", {done.thin_parameters:,} of them in thin layers" if done.thin_parameters else ""
        typer.echo(f"parameters: base {before:,}, here {after:,}{thin}")
        typer.echo("not verified (--no-verify)" if verdict is None else verdict.sentence())
        if address is not None:
            typer.echo(f"uploaded: {address}")
    if not agrees:
        typer.echo(f"the files stay in {wish.out}", err=True)
        raise typer.Exit(1)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


def apply(
    edit: Annotated[Path, typer.Argument(metavar="PATCH", help="A patch or recipe.")],
    model: Annotated[str, typer.Option(help="The base model: local folder or hub id.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the dense model from a patch or a recipe and its base model.

    Example: laser-search apply ./my-patch --model openai-community/gpt2 --out ./my-model
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from search.export.run import apply_edit

        same = apply_edit(edit, model, out, overwrite=overwrite, phases=phases)
    if as_json:
        _print_json({"out": str(out), "bit_for_bit": same})
    if same is False:
        typer.echo(
            f"{out} is written, but this machine rounds products differently from the one that "
            "made the patch: the edited tensors agree up to rounding, not bit for bit",
            err=True,
        )
        raise typer.Exit(1)
    said = {True: ", bit for bit the model that was exported", None: ""}[same]
    if not as_json:
        typer.echo(f"{out}: written{said}")


def heal(
    folder: StudyFolder,
    train: Annotated[str, typer.Option(help="Training data in the task's format.")],
    steps: Annotated[int, typer.Option(min=1, help="Number of optimiser steps.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    trial: Annotated[Optional[int], typer.Option(help="The trial; by default the winner.")] = None,  # noqa: UP045
    method: Annotated[
        Literal["lora", "factors"], typer.Option(help="An adapter, or the thin layers themselves.")
    ] = "lora",
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 1e-4,
    batch: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the order and of the adapter.")] = 0,
    task: Annotated[
        str,
        typer.Option(
            help="In a study of several tasks: that of the data; with --intervention: the task to "
            "score."
        ),
    ] = "",
    intervention: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="FOLDER is a model; cut it like this: MATRIX=RHO, or a file; may be repeated."
        ),
    ] = None,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --intervention: the questions to score it on."),
    ] = None,
    apart: Annotated[
        bool,
        typer.Option(
            "--apart", help="Keep the adapter or the thin layers instead of one dense model."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model after its cut, score it like a trial, and write it.

    With --intervention no study is needed: FOLDER is then a model, which is cut and trained.
    --intervention ./my-cut uses the cut that `laser-search cut` wrote there.

    Example: laser-search heal ./my-study --train train.jsonl --steps 500 --out ./healed
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from search.export.exported_trial import choose_trial
        from search.export.heal import Recipe
        from search.export.heal import heal as train_after_cut
        from search.study.study_record import StudyRecord

    with reporting() as phases, ExitStack() as held:
        phases.enter("loading the program")
        from search.export.exported_trial import choose_trial
        from search.export.heal import Recipe
        from search.export.heal import heal as train_after_cut
        from search.study.study_record import StudyRecord

        if intervention is None:
            record = StudyRecord.read(folder)
            chosen, label = choose_trial(record, trial), task
        else:
            phases.enter("scoring the cut")
            record, chosen = _known(folder, intervention, task, data, held)
            label = ""
        recipe = Recipe(steps, method, rank, learning_rate, batch, seed, not apart, label)
        found, verdict = train_after_cut(
            record, chosen, train, recipe, out, overwrite=overwrite, phases=phases
        )
    if as_json:
        _print_json({"out": str(out), **asdict(found), "verdict": asdict(verdict)})
    else:
        _print_healed(found, f"{out}: {verdict.sentence()}")
    if not verdict.agrees:
        raise typer.Exit(1)


def _known(
    model: Path, interventions: list[str], task: str, data: str | None, held: ExitStack
) -> tuple[StudyRecord, TrialRecord]:
    """A cut that is named as a study of one trial, in a folder that goes with `held`."""
    from search.export.known_study import study_of_cut
    from search.leftovers import marked_scratch
    from search.model import ModelSource
    from search.sections import TaskConfig

    if not task:
        raise InputError(
            "use --task and --data to give the questions on which the cut model is scored"
        )
    scratch = held.enter_context(marked_scratch()).folder
    if data is not None and Path(data).exists():
        data = str(Path(data).absolute())
    asked = TaskConfig(name=task, data=data)
    factors = str(scratch / "factors")
    return study_of_cut(scratch / "study", ModelSource(str(model)), interventions, asked, factors)


def _print_healed(found: Healing, verdict: str) -> None:
    for part in found.comparisons:
        scores = (f"{side} {found.scores[side][part]:.4f}" for side in ("base", "cut", "healed"))
        typer.echo(f"{part}: {', '.join(scores)}")
    size = found.parameters
    typer.echo(
        f"parameters: base {size['base']:,}, here {size['healed']:,}, trained {size['trained']:,}"
    )
    typer.echo(verdict)
