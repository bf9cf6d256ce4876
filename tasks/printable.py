"""Texts that came from outside, made fit to be shown: no character of theirs moves a terminal."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escape sequences, bells, line breaks
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators, and what turns text around
    "\ud800-\udfff"  # lone surrogates, which no stream can encode
    "\U000e0000-\U000e007f]"  # invisible tags
)
_KEPT = {"\n", "\t"}


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with every control character written out as JSON writes it.

    So JSON stays the same value. Line breaks and tabs are written out too, so that a name cannot
    begin a line of its own, unless `lines`: for whole outputs.
    """
    return _CONTROLS.sub(lambda found: _escaped(found.group(), lines), text)


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(letter: str, lines: bool) -> str:
    if lines and letter in _KEPT:
        return letter
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
