"""Names of weight matrices: ``27.fc_in``, ``decoder.11.cross.q_proj``, ``3.experts.5.fc_out``.

A matrix outside the blocks has no layer, and is called by its module: ``pooler.dense``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.errors import InputError

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
MLP = ("fc_in", "fc_up", "fc_out")
GROUPS: dict[str, tuple[str, ...]] = {"attn": ATTENTION, "mlp": MLP, "all": ATTENTION + MLP}
"""Matrix types by group, as in LASER."""

OUTSIDE = 10**9
"""The layer of what is in no block; above every layer, since heads come last in most models."""

_NAME = re.compile(r"[A-Za-z_][\w\-]*(?:\.[\w\-]+)*")

_ADDRESS = re.compile(
    r"(?:(?P<stack>[a-z]+)\.)?(?P<layer>\d+)\.(?P<cross>cross\.)?"
    r"(?:experts\.(?P<expert>\d+)\.)?(?P<type>[A-Za-z_][\w.\-]*)"
)


@dataclass(frozen=True, slots=True)
class MatrixRef:
    """The address of one weight matrix; prints as and parses from text.

    `layer` counts blocks from 0; it is OUTSIDE where the matrix is in none. `stack` is ``encoder``
    or ``decoder`` where a model has both, else empty. `cross` marks attention from decoder to
    encoder. `expert` is the index in a mixture. `type` is one of GROUPS["all"], or a module name
    for matrices that no rule knows, and for those outside the blocks.
    """

    layer: int
    type: str
    stack: str = ""
    cross: bool = False
    expert: int | None = None

    def __str__(self) -> str:
        """The address as text."""
        if self.is_outside:
            return self.type
        stack = f"{self.stack}." if self.stack else ""
        cross = "cross." if self.cross else ""
        expert = "" if self.expert is None else f"experts.{self.expert}."
        return f"{stack}{self.layer}.{cross}{expert}{self.type}"

    @property
    def is_outside(self) -> bool:
        """Whether the matrix is in no block."""
        return self.layer == OUTSIDE

    @property
    def row(self) -> str:
        """The layer as tables name it, with its stack where the model has several."""
        if self.is_outside:
            return "outside"
        return f"{self.stack}.{self.layer}" if self.stack else str(self.layer)

    @staticmethod
    def outside(module: str) -> MatrixRef:
        """The address of the matrix of `module`, which is in no block."""
        own = _ADDRESS.fullmatch(module) or module in GROUPS or module in GROUPS["all"]
        return MatrixRef(OUTSIDE, f"module.{module}" if own else module)

    def __lt__(self, other: MatrixRef) -> bool:
        """Order by stack, layer, self before cross attention, type as in GROUPS, expert."""
        return self.order < other.order

    @property
    def order(self) -> tuple[str, int, bool, int, str, int]:
        """What addresses are sorted by."""
        known = GROUPS["all"]
        place = known.index(self.type) if self.type in known else len(known)
        expert = -1 if self.expert is None else self.expert
        return (self.stack, self.layer, self.cross, place, self.type, expert)

    @staticmethod
    def parse(text: str) -> MatrixRef:
        """Read an address. Raises InputError if `text` is not one."""
        match = _ADDRESS.fullmatch(text)
        if match is None and _NAME.fullmatch(text) and MatrixRef.outside(text).type == text:
            return MatrixRef.outside(text)
        if match is None:
            raise InputError(
                f"{text!r} is not a matrix address; expected LAYER.TYPE such as '27.fc_in' "
                "or 'decoder.11.cross.q_proj', or a module outside the blocks as 'pooler.dense'"
            )
        expert = match["expert"]
        return MatrixRef(
            layer=int(match["layer"]),
            type=match["type"],
            stack=match["stack"] or "",
            cross=match["cross"] is not None,
            expert=None if expert is None else int(expert),
        )
