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
