"""Names of weight matrices: ``27.fc_in``, ``decoder.11.cross.q_proj``, ``3.experts.5.fc_out``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.errors import InputError

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
MLP = ("fc_in", "fc_up", "fc_out")
GROUPS: dict[str, tuple[str, ...]] = {"attn": ATTENTION, "mlp": MLP, "all": ATTENTION + MLP}
"""Matrix types by group, as in LASER."""

_ADDRESS = re.compile(
    r"(?:(?P<stack>[a-z]+)\.)?(?P<layer>\d+)\.(?P<cross>cross\.)?"
    r"(?:experts\.(?P<expert>\d+)\.)?(?P<type>[A-Za-z_][\w.\-]*)"
)


@dataclass(frozen=True, slots=True)
class MatrixRef:
    """The address of one weight matrix; prints as and parses from text.

    `layer` counts blocks from 0. `stack` is ``encoder`` or ``decoder`` where a model has both, else
    empty. `cross` marks attention from decoder to encoder. `expert` is the index in a mixture.
    `type` is one of GROUPS["all"], or a module name for matrices that no rule knows.
    """

    layer: int
    type: str
    stack: str = ""
    cross: bool = False
    expert: int | None = None

    def __str__(self) -> str:
        """The address as text."""
        stack = f"{self.stack}." if self.stack else ""
        cross = "cross." if self.cross else ""
        expert = "" if self.expert is None else f"experts.{self.expert}."
        return f"{stack}{self.layer}.{cross}{expert}{self.type}"

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
        if match is None:
            raise InputError(
                f"{text!r} is no matrix address; expected LAYER.TYPE such as '27.fc_in' "
                "or 'decoder.11.cross.q_proj'"
            )
        expert = match["expert"]
        return MatrixRef(
            layer=int(match["layer"]),
            type=match["type"],
            stack=match["stack"] or "",
            cross=match["cross"] is not None,
            expert=None if expert is None else int(expert),
        )
