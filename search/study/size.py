"""How many parameters a composition keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from search.composition import Composition
from search.weights.refs import MatrixRef

KEPT = "kept"
"""Trial attribute: the share of the parameters of the model's matrices that is kept."""


def kept_share(
    composition: Composition,
    shapes: Mapping[MatrixRef, tuple[int, ...]],
    max_ranks: Mapping[MatrixRef, int],
) -> float:
    """Parameters kept of all matrices in `shapes` [out, in], as a share.

    A cut matrix counts as two thin factors, rank * (out + in), where those are fewer, and pruned
    entries are not counted. Rules that read a spectrum are not known here: they count whole.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    saved = 0.0
    for cut in composition.interventions:
        whole = math.prod(shapes[cut.matrix])
        if cut.kind == "zero":
            saved += whole
        elif cut.prunes:
            saved += whole * (1 - cut.rule.value)
        elif cut.rule.name in ("rho", "rank"):
            rank = cut.rule.rank(max_ranks[cut.matrix])
            saved += max(0, whole - rank * sum(shapes[cut.matrix][-2:]))
    return 1 - saved / total
