"""Words as the Penn Treebank's tokenizer divides them, for LASER's F1."""

from __future__ import annotations

import re

_SIGNS = re.compile(r"\.\.\.|--|[;@#$%&?!()\[\]{}<>]")
_OPENING = re.compile(r"(^|[\s(\[{<])\"")
_NUMERIC = re.compile(r"[,:](?!\d)")
_END = re.compile(r"(?<!\.)\.(?=[\])}>\"'\s]*$)")
_CLITICS = re.compile(r"(?<=[^'\s])('s|'m|'d|'ll|'re|'ve|n't|')(?=\s|$)")


def words(text: str) -> list[str]:
    """The words and signs of one line of `text`, in order.

    Hyphens, slashes and full stops inside stay in a word: ``well-known``, ``u.s``; ``1,000`` is
    one, ``don't`` two. A full stop is a word of its own only at the end of the text.
    """
    text = _OPENING.sub(r"\1 `` ", text)
    text = _END.sub(" . ", _NUMERIC.sub(r" \g<0> ", text))
    text = _SIGNS.sub(r" \g<0> ", text).replace('"', " '' ")
    return _CLITICS.sub(r" \1", text).split()
