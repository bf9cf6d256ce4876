"""Options and arguments that many commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
PresetName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--preset", metavar="NAME", help="A published result; see laser-search presets."),
]
