"""Fused weights as one matrix: what LASER's code cuts where one of their parts is named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from search.weights.matrices import Matrix
from search.weights.views import View


def whole_weights(matrices: Sequence[Matrix]) -> dict[MatrixRef, Matrix]:
    """By the address of each part of a fused weight, all of that weight as one matrix.

    Its address is the layer and the module's own name: ``3.attn.c_attn``. Experts of one stack are
    no parts of a fused weight.
    """
    parts: dict[tuple[str, int | None], list[Matrix]] = defaultdict(list)
    for matrix in matrices:
        if matrix.view.width:
            parts[matrix.parameter, matrix.view.expert].append(matrix)
    found = {}
    for (_, expert), own in parts.items():
        first = own[0]
        rows = sum(part.shape[0] for part in own)
        whole = replace(
            first,
            ref=MatrixRef(first.ref.layer, _local(first), first.ref.stack, expert=expert),
            shape=(rows, first.shape[1]),
            view=View(expert=expert, transposed=first.view.transposed),
            rule=f"{first.rule}; all of a fused weight",
            searchable=False,
        )
        found.update({part.ref: whole for part in own})
    return found


def widened(composition: Composition, rho: float, matrices: Sequence[Matrix]) -> Composition:
    """`composition` with all of each fused weight instead of its parts.

    A weight is cut once, to int(min(out, in) · `rho`) ranks, however many of its parts are named.
    """
    wholes = whole_weights(matrices)
    cuts: dict[MatrixRef, Intervention] = {}
    for cut in composition.interventions:
        whole = wholes.get(cut.matrix)
        if whole is None:
            cuts[cut.matrix] = cut
        else:
            rank = int(whole.max_rank * rho)
            cuts[whole.ref] = Intervention(whole.ref, Level(RankRule("rank", rank), cut.kind))
    return Composition(tuple(cuts.values()))


def fused_notice(composition: Composition, lname: str, matrices: Sequence[Matrix]) -> list[str]:
    """One sentence where LASER's code would cut more than the parts that `composition` does."""
    wholes = whole_weights(matrices)
    named = {i.matrix for i in composition.interventions}
    cut = [wholes[ref] for ref in sorted(named) if ref in wholes]
    # Where every part is named, theirs is still one SVD of all rows, not one of each part.
    if not cut:
        return []
    return [
        f"--lname {lname} cuts its own rows of the fused {cut[0].module}; LASER's code cuts the "
        "whole weight as one matrix, as --fused whole does"
    ]


def _local(matrix: Matrix) -> str:
    return matrix.module.removeprefix(f"{matrix.block}.") or matrix.module
