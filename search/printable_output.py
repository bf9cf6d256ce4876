"""Standard output as people and scripts may read it, whatever the texts hold that pass through.

Questions, names, answers and logs may hold escape sequences, which a terminal would obey.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tasks.printable import printable


class PrintableStream:
    """A text stream that writes to `stream` what is printable, and line breaks.

    Letters that its encoding lacks are written out too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
        if not isinstance(text, str):
            raise TypeError(f"text is expected, not {type(text).__name__}")
        shown = printable(text, lines=True)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    @property
    def encoding(self) -> str:
        """Every letter is taken."""
        return "utf-8"

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream itself, for consoles: what they write is printable but for their own codes."""
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Within, standard output and errors show printable text alone."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(PrintableStream, streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
