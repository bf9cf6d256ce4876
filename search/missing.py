"""The factors of a study that its cache lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from search.cuts.kinds.base import Inputs, Kind
from search.cuts.refs import MatrixRef
from search.origin import WeightOrigin
from search.outline import one_factor_bytes
from search.phases import SILENT, Phases
from search.plan import Plan
from search.weights.matrices import Matrix
from search.weights.remote import open_factors


@dataclass(frozen=True)
class Missing:
    """Factors to compute: of which matrix, and of which kind of cut; None is the plain SVD.

    `sets`: how many a study reads in all.
    """

    factors: tuple[tuple[Matrix, Kind | None], ...]
    sets: int

    @staticmethod
    def of(plan: Plan, inputs: Mapping[MatrixRef, Inputs], phases: Phases = SILENT) -> Missing:
        """What a launch of `plan` would compute. Reads the weights.

        `inputs`: what matrices are given, as far as it is known. Factors that need it and whose
        matrix has none there are not in any cache.
        """
        kinds = own_factors(plan)
        ways = [None, *kinds]
        count = len(plan.searched) * len(ways)
        root = plan.config.factors
        if "://" not in root and not Path(root).is_dir():
            return Missing(tuple((one, way) for one in plan.searched for way in ways), count)
        origin, cache = WeightOrigin(plan.source), open_factors(root)
        phases.enter("looking for factors", len(plan.searched))
        found: list[tuple[Matrix, Kind | None]] = []
        for number, matrix in enumerate(plan.searched, start=1):
            weight, given = origin.read(matrix), inputs.get(matrix.ref)
            if not cache.has(cache.key(weight)):
                found.append((matrix, None))
            for kind in kinds:
                unknown = kind.needs_inputs and given is None
                if unknown or not cache.has(cache.key(weight, kind.factoring_on(given))):
                    found.append((matrix, kind))
            phases.advance(number)
        return Missing(tuple(found), count)

    @property
    def bytes(self) -> int:
        """What they take on disk."""
        return sum(one_factor_bytes(matrix) for matrix, _ in self.factors)

    @property
    def names(self) -> list[str]:
        """A matrix's address, and the kind that its factors are for, unless they are the SVD."""
        return [f"{m.ref}" if kind is None else f"{m.ref} {kind.name}" for m, kind in self.factors]


def own_factors(plan: Plan) -> list[Kind]:
    """The kinds of a plan's levels whose factors are not the plain SVD, one of each factoring."""
    found = {}
    for level in plan.space.levels:
        kind = level.made_by
        if kind.needs_inputs:
            found[kind.name] = kind
        elif kind.factoring is not None:
            found[kind.factoring.name] = kind
    return list(found.values())
