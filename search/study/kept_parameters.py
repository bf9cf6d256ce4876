"""How many parameters a composition keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef


def kept_share(
    composition: Composition,
    shapes: Mapping[MatrixRef, tuple[int, ...]],
    spectra: Mapping[MatrixRef, Sequence[float]] | None = None,
) -> float:
    """Parameters kept of all matrices in `shapes` [out, in], as a share.

    Each kind says what it stores. Rules that read a spectrum count whole where `spectra`, singular
    values descending, lacks the matrix.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    saved = 0.0
    for cut in composition.interventions:
        shape, spectrum = shapes[cut.matrix], (spectra or {}).get(cut.matrix)
        saved += math.prod(shape) - cut.made_by.stored(cut.rule, shape, spectrum)
    return 1 - saved / total
