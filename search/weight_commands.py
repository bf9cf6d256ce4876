"""Commands on weights and their factors: matrices, and factors verify, rebuild, gc, du."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Optional

import typer

from search.options import HeadName
from search.verbosity import Program

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CacheLocation = Annotated[
    str, typer.Argument(metavar="DIR", help="The factor cache, a folder or a URL.")
]

factors = Program(
    name="factors",
    help="Check and maintain a factor cache.",
    no_args_is_help=True,
    add_completion=False,
)


def matrices(
    model: Annotated[str, typer.Argument(help="Local folder or hub id.")],
    head: HeadName = "auto",
    cache: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--factors", help="Also show which have factors in this cache; reads the weights."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List every weight matrix: its address, its parameter, and the rule that identified it.

    Example: laser-search matrices ./llama --factors ./factors
    """
    from search.model import ModelSource
    from search.report.listing import list_matrices, table

    rows = list_matrices(ModelSource(model, head_choice=head), cache)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for line in table(rows):
        typer.echo(line)


@factors.command()
def verify(folder: CacheLocation, as_json: JsonFlag = False) -> None:
    """Check every byte of every file; what is damaged is set aside, and the exit code is 1.

    Example: laser-search factors verify ./factors
    """
    from search.weights.upkeep import existing, verify_all

    whole, damaged = verify_all(existing(folder))
    if as_json:
        typer.echo(json.dumps({"whole": whole, "damaged": list(damaged)}))
    else:
        for key in damaged:
            typer.echo(f"damaged: {key}")
        typer.echo(f"{whole} whole, {len(damaged)} damaged and set aside")
    if damaged:
        raise typer.Exit(1)


@factors.command()
def rebuild(folder: CacheLocation, as_json: JsonFlag = False) -> None:
    """Write the index anew from the files.

    Example: laser-search factors rebuild ./factors
    """
    from search.weights.upkeep import existing

    count = len(existing(folder).rebuild())
    typer.echo(json.dumps({"matrices": count}) if as_json else f"{count} matrices in the index")


@factors.command()
def du(folder: CacheLocation, as_json: JsonFlag = False) -> None:
    """Say how much room the factors take, by model.

    Example: laser-search factors du ./factors
    """
    from search.weights.upkeep import existing, local, usage

    used = usage(existing(local(folder)))
    if as_json:
        typer.echo(json.dumps(asdict(used), indent=2))
        return
    for model, (files, size) in used.models.items():
        typer.echo(f"{size / 1e6:12.1f} MB  {files:6d}  {model}")
    typer.echo(f"{used.bytes / 1e6:12.1f} MB  {used.files:6d}  all (some may serve many models)")
    typer.echo(f"{used.waste_bytes / 1e6:12.1f} MB  {used.waste:6d}  damaged or left over")


@factors.command()
def gc(
    folder: CacheLocation,
    keep_model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Also remove the factors of all models but this one; may be repeated."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove the files; otherwise only list them.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove damaged files, temporaries that a kill left, and factors that no model needs.

    Example: laser-search factors gc ./factors --keep-model ./llama --yes
    """
    from search.weights.upkeep import collect, existing, local, remove

    cache = existing(local(folder))
    found = collect(cache, keep_model)
    if as_json:
        rows = [{"file": str(x.path), "bytes": x.size, "reason": x.reason} for x in found]
        if yes:
            remove(cache, found)
        typer.echo(json.dumps({"removed": yes, "files": rows}, indent=2))
        return
    for item in found:
        typer.echo(f"{item.size / 1e6:12.1f} MB  {item.path.name}  {item.reason}")
    total = f"{len(found)} files, {sum(item.size for item in found) / 1e6:.1f} MB"
    if not yes:
        typer.echo(f"would remove {total}; add --yes to do it")
        return
    remove(cache, found)
    typer.echo(f"removed {total}")
