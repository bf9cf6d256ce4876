"""Options and arguments that many commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tasks.base import HeadChoice

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
HeadName = Annotated[HeadChoice, typer.Option(help="The model head to load.")]
DTypeName = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(help="auto: the checkpoint's dtype."),
]
Revision = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Branch, tag or commit of a model on the hub."),
]
PresetName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--preset", metavar="NAME", help="A published result; see laser-search presets."),
]
