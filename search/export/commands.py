"""Commands that use what a search found: export, apply."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")]
FormatName = Literal["dense", "factored", "patch", "recipe", "lora"]


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(export)
    app.command()(apply)


def export(
    folder: StudyFolder,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        FormatName, typer.Option("--format", help="dense is what any program loads.")
    ] = "dense",
    trial: Annotated[Optional[int], typer.Option(help="A trial; else the winner.")] = None,  # noqa: UP045
    push: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="REPO", help="Upload it to the hub, once verified; new ones private."),
    ] = None,
    overwrite: Overwrite = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not load it again and ask it.")
    ] = False,
) -> None:
    """Write the best composition: a model that transformers loads, or a smaller form of it.

    It is then loaded in a fresh process and asked the trial's questions; exit code 1 if an answer
    differs.

    Example: laser-search export ./my-study --out ./my-model --format factored
    """
    from search.export.choice import choose_trial
    from search.export.run import Wish, export
    from search.study.record import StudyRecord

    record = StudyRecord.read(folder)
    chosen = choose_trial(record, trial)
    wish = Wish(out, form, overwrite, not no_verify, shlex.join(["laser-search", *sys.argv[1:]]))
    verdict = export(record, chosen, wish)
    typer.echo(f"{out}: {chosen.user_attrs['composition']} (trial {chosen.number}, {form})")
    if verdict is not None:
        typer.echo(verdict.sentence())
        if not verdict.agrees:
            typer.echo(f"the files stay in {out}", err=True)
            raise typer.Exit(1)
    if push is not None:
        from search.export.hub import push_folder

        typer.echo(f"uploaded: {push_folder(out, push)}")


def apply(
    edit: Annotated[Path, typer.Argument(metavar="PATCH", help="A patch or recipe.")],
    model: Annotated[str, typer.Option(help="The base model: local folder or hub id.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    overwrite: Overwrite = False,
) -> None:
    """Make the dense model from a patch or a recipe and its base model.

    Example: laser-search apply ./my-patch --model openai-community/gpt2 --out ./my-model
    """
    from search.export.run import apply_edit

    same = apply_edit(edit, model, out, overwrite=overwrite)
    if same is False:
        typer.echo(
            f"{out} is written, but this machine rounds products otherwise than the one that made "
            f"the patch: the edited tensors agree up to rounding, not bit for bit",
            err=True,
        )
        raise typer.Exit(1)
    said = {True: ", bit for bit the model that was exported", None: ""}[same]
    typer.echo(f"{out}: written{said}")
