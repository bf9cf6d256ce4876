"""Commands that show: report, watch, dashboard, spectra; and init, which writes a study.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(report)
    app.command()(spectra)


def report(
    folder: StudyFolder,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file to write; by default report.html in the study folder."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what a study found as one HTML file: verdict, maps, course, examples, cost.

    The file asks the network for nothing. A study that still runs can be reported too.

    Example: laser-search report ./my-study --out report.html
    """
    from search.report.html import write_report
    from search.study.record import StudyRecord
    from tasks.errors import InputError

    path = folder / "report.html" if out is None else out
    record = StudyRecord.read(folder)
    try:
        write_report(record, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); name another with --out"
        ) from None
    size = path.stat().st_size
    found = json.dumps({"report": str(path), "bytes": size})
    typer.echo(found if as_json else f"{path}: {size / 1e6:.1f} MB")


def spectra(
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Local folder or hub id; leave it out to read --factors alone."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("spectra"),
    factors: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A factor cache, whose spectra are used where it has them."),
    ] = None,
    address: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Matrices such as 27.fc_in or '*.fc_in'; may be repeated."),
    ] = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Show W x for this task's real inputs too; needs MODEL."),
    ] = None,
    data: Annotated[Optional[str], typer.Option(help="The task's file or hub id.")] = None,  # noqa: UP045
    as_json: JsonFlag = False,
) -> None:
    """Plot the singular values of a model's matrices, and say how much of them is noise.

    Writes spectra.html, spectra.parquet, snr.json (as laserRMT and spectrum have it) and figures.

    Example: laser-search spectra ./llama --address '*.fc_in' --out ./spectra
    """
    from search.config import TaskConfig
    from search.model import ModelSource
    from search.report.spectra import write_spectra
    from search.report.spectra_data import real_cosines, spectra_of_cache, spectra_of_model
    from tasks.errors import InputError

    chosen = address or []
    if model is None:
        if factors is None or task is not None:
            raise InputError("name a model, or a cache with --factors (--task needs a model)")
        found, real = spectra_of_cache(factors, chosen), {}
    else:
        source = ModelSource(model)
        found = spectra_of_model(source, chosen, factors)
        names = [spectrum.name for spectrum in found]
        real = {} if task is None else real_cosines(source, TaskConfig(name=task, data=data), names)
    written = write_spectra(found, out, real)
    if as_json:
        typer.echo(json.dumps({"matrices": len(found), "files": [str(p) for p in written]}))
    else:
        typer.echo(f"{out / 'spectra.html'}: {len(found)} matrices")
