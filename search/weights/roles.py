"""What one weight of a block is: its types, and how they lie in its rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from search.weights.views import View

_ORDERS = ("rows", "heads", "alternate", "mp4", "falcon", "bigcode")


@dataclass(frozen=True)
class Role:
    """What a weight is: its types in order, and how they are interleaved. No types: listed only."""

    types: tuple[str, ...] = ()
    order: str = "rows"
    cross: bool = False
    transposed: bool = False
    note: str = ""
    pattern: str = ""

    @staticmethod
    def parse(text: str, pattern: str = "") -> Role:
        """Read the value of a table row."""
        if text == "router":
            return Role(note="router of a mixture of experts", pattern=pattern)
        if text == "own":
            return Role(note="a part with no type of its own", pattern=pattern)
        head, colon, tail = text.partition(":")
        words = set(head.split()) if colon else set()
        order = next((word for word in _ORDERS if word in words), "rows")
        return Role(
            types=tuple((tail if colon else text).split()),
            order=order,
            cross="cross" in words,
            transposed="transposed" in words,
            pattern=pattern,
        )

    def expert_of(self, local: str) -> int | None:
        """The expert's index in a module name, where experts are modules of their own."""
        match = name_regex(self.pattern).fullmatch(local) if self.pattern else None
        number = match.groupdict().get("expert") if match else None
        return None if number is None else int(number)

    def spans(self, rows: int, config: Any) -> list[tuple[str, View]] | None:
        """(type, view) of each part of a weight of `rows` rows; None if the sizes do not fit."""
        if len(self.types) == 1:
            return [(self.types[0], View())]
        if len(self.types) != 3:
            return self._periods(1 if self.order == "rows" else rows // len(self.types), rows)
        heads, groups, width = _attention(config, rows)
        order = self.order
        if order == "falcon":
            grouped = getattr(config, "new_decoder_architecture", False)
            order = "rows" if not grouped and getattr(config, "multi_query", False) else "heads"
            groups = groups if grouped else (1 if order == "rows" else heads)
        elif order == "bigcode":
            order = "rows" if getattr(config, "multi_query", False) else "heads"
            groups = 1 if order == "rows" else heads
        outer = {"heads": groups, "mp4": 4}.get(order, 1)
        if width * (heads + 2 * groups) != rows or heads % groups or heads % outer:
            return None
        sizes = {"q_proj": heads * width, "k_proj": groups * width, "v_proj": groups * width}
        return self._cut(outer, [sizes[kind] // outer for kind in self.types])

    def _periods(self, outer: int, rows: int) -> list[tuple[str, View]] | None:
        parts = len(self.types) * outer
        return None if rows % parts else self._cut(outer, [rows // parts] * len(self.types))

    def _cut(self, outer: int, widths: list[int]) -> list[tuple[str, View]]:
        offsets = [sum(widths[:i]) for i in range(len(widths))]
        return [
            (kind, View(outer=outer, offset=offset, width=width))
            for kind, offset, width in zip(self.types, offsets, widths, strict=True)
        ]


def _attention(config: Any, rows: int) -> tuple[int, int, int]:
    """(heads, key-value heads, rows a head) of an attention whose q, k, v make up `rows` rows."""

    def first(*names: str) -> int | None:
        values = (getattr(config, name, None) for name in names)
        return next((int(value) for value in values if value), None)

    heads = first("num_attention_heads", "n_head", "n_heads") or 1
    groups = first("num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads
    hidden = first("hidden_size", "n_embd", "d_model") or 0
    return heads, groups, first("head_dim") or (hidden // heads if hidden else rows // (3 * heads))


@cache
def name_regex(pattern: str) -> re.Pattern[str]:
    """A row's name as an expression: ``*`` is a number, ``{expert}`` an expert's."""
    escaped = re.escape(pattern).replace(r"\*", r"\d+").replace(r"\{expert\}", r"(?P<expert>\d+)")
    return re.compile(escaped)
