"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tasks.printable import printable
from tasks.secrets import hide_secrets


class InputError(ValueError):
    """Bad input: one sentence that names the value and the remedy.

    The command line prints the sentence and exits with code 2; nothing else is caught there. What
    the sentence quotes came from outside: it is printable, and shows no password of a URL.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(hide_secrets(sentence), lines=True))


def nearest(value: str, names: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of `names`, or an empty string."""
    found = difflib.get_close_matches(value, sorted(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
