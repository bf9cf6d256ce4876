"""A console for tables and live views of texts that came from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tasks.printable import printable


class Terminal(Console):
    """A rich console on standard output or error, whose renderables cannot move the terminal."""

    def __init__(self, *, error: bool = False, **options: Any) -> None:
        """`options` are rich's; a name of an emoji between colons is text, as what a model says."""
        stream = sys.stderr if error else sys.stdout
        out = getattr(stream, "rich_proxied_file", stream)
        super().__init__(**{"file": out, "emoji": False, **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of `renderable`, made printable; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, lines=True), segment.style)
