"""Options and arguments that many commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
