"""Which factors are kept of a study's matrices, and having them in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.kinds.triples import reach
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import fraction_of
from search.model import ModelSource
from search.origin import WeightOrigin
from search.space import Space
from search.weights.factors import Busy, FactorCache
from search.weights.matrices import Matrix
from search.weights.remote import open_factors
from search.weights.svd import work_of
from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PROCESS_WORK = 2e9
"""About a second of one core: as `svd.work_of` counts, a matrix of 3072 x 768 has 1.8e9."""


FOUND_BYTES = 2 * 2**30
"""Of weights, in float32, that one process reads and looks for in the seconds that another takes to
start."""


def quick_to_find(source: ModelSource, matrices: Sequence[Matrix]) -> bool:
    """Whether a process finds out which factors are there before another has begun."""
    origin = WeightOrigin(source)
    size = sum(4 * math.prod(matrix.shape) for matrix in matrices)
    return size <= FOUND_BYTES and all(map(origin.is_direct, matrices))


def worth_a_process(source: ModelSource, matrices: Sequence[Matrix]) -> bool:
    """Whether factors of `matrices` take longer than a process that imports torch for seconds.

    Those that the checkpoint's files do not hold as they are do: the model is loaded for them.
    """
    origin = WeightOrigin(source)
    work = sum(work_of(matrix.shape) for matrix in matrices)
    return work >= PROCESS_WORK or not all(map(origin.is_direct, matrices))


@dataclass(frozen=True)
class Storing:
    """What is kept of a matrix: the ranks up to `max_rho` of all, in `dtype`.

    `inputs`: what matrices are given, for the kinds of cut that need it. `levels`: the cuts that
    read them. Factors that hold what these read are left as they are; with
    `every_rank`, or no levels, only those that hold all that is kept.
    """

    max_rho: float = 1.0
    dtype: str = "float32"
    levels: tuple[Level, ...] = ()
    every_rank: bool = False
    inputs: Mapping[MatrixRef, Inputs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a fraction that keeps nothing or more than all."""
        if not 0 < self.max_rho <= 1:
            raise InputError(
                f"--max-rho {self.max_rho:g} is outside (0, 1]; it is the fraction of rank stored"
            )

    @staticmethod
    def for_space(
        space: Space,
        *,
        every_rank: bool = False,
        inputs: Mapping[MatrixRef, Inputs] | None = None,
    ) -> Storing:
        """All ranks are kept, but those that the levels of a space read are enough."""
        return Storing(levels=space.levels, every_rank=every_rank, inputs=dict(inputs or {}))

    def keys(
        self, cache: FactorCache, matrix: Matrix, weight: Tensor
    ) -> list[tuple[Factoring | None, str]]:
        """How what is kept of `matrix` [out, in] is made, and its key in `cache`; SVD first."""
        return [(one, cache.key(weight, one)) for one in self.factorings(matrix)]

    def factorings(self, matrix: Matrix) -> list[Factoring | None]:
        """How the factors of `matrix` are made, by the kinds that need any: None is the SVD.

        The SVD is always among them: its keys are what the study knows the weights by.
        """
        inputs = self.inputs.get(matrix.ref)
        own = (level.made_by.factoring_on(inputs) for level in self.levels)
        return [None, *{one.name: one for one in own if one is not None}.values()]

    def rank(self, matrix: Matrix) -> int:
        """Ranks kept of `matrix`."""
        return fraction_of(self.max_rho, matrix.max_rank)

    def enough(self, matrix: Matrix) -> int:
        """Ranks of `matrix` that must be there."""
        if self.every_rank or not self.levels:
            return self.rank(matrix)
        return max(1, *(_read(level, matrix) for level in self.levels))


def _read(level: Level, matrix: Matrix) -> int:
    """The leading ranks of a matrix that a cut to `level`, or a screen of it, reads."""
    kind, rule = level.made_by, level.rule
    if rule.needs_spectrum:
        return matrix.max_rank
    kept = kind.kept(rule, matrix.shape)
    if kept is None:  # no sum of triples; a screen may take the leading ones for it
        kept = range(kind.rank(rule, matrix.shape))
    return reach(kept, matrix.max_rank)[1]


@dataclass(frozen=True)
class Built:
    """What became of one matrix: its content key, and whether its factors were computed now."""

    address: str
    key: str
    computed: bool


@dataclass(frozen=True)
class MatrixBatch:
    """The matrices that are ready, and those that another builder has claimed."""

    ready: list[Built]
    busy: list[Matrix]


def find_factors(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str,
    storing: Storing,
    on_found: Callable[[Built], None],
) -> list[Matrix]:
    """The matrices whose factors the cache at `root` lacks; `on_found` hears of each other one.

    Nothing is computed, and every byte of a file that is there is checked. Where the first matrix
    has no factors none is looked for. Raises InputError if the folder cannot be read.
    """
    origin = WeightOrigin(source)
    missing: list[Matrix] = []
    with open_factors(root, storing.dtype) as cache:
        for place, matrix in enumerate(matrices):
            weight, where = origin.read(matrix), f"{source.path}:{matrix.ref}"
            keys = storing.keys(cache, matrix, weight)
            if all(cache.is_ready(key, where, storing.enough(matrix)) for _, key in keys):
                on_found(Built(str(matrix.ref), keys[0][1], False))
            elif place == 0:
                return list(matrices)
            else:
                missing.append(matrix)
    return missing


def ensure_factors(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str,
    storing: Storing,
    device: str,
    wait: bool = True,
    on_built: Callable[[Built], None] = lambda built: None,
) -> MatrixBatch:
    """Read matrices and compute the factors that the cache at `root` lacks, on `device`.

    Without `wait`, matrices that another process has claimed come back as busy. `on_built` hears of
    each that is ready. Raises InputError that names the matrix.
    """
    origin = WeightOrigin(source)
    batch = MatrixBatch([], [])
    with open_factors(root, storing.dtype) as cache:
        for matrix in matrices:
            weight = origin.read(matrix)
            where = f"{source.path}:{matrix.ref}"
            keys, computed = storing.keys(cache, matrix, weight), False
            try:
                for factoring, key in keys:
                    computed |= cache.ensure(
                        weight.to(device),
                        key,
                        where,
                        rank=storing.enough(matrix),
                        keep=storing.rank(matrix),
                        wait=wait,
                        factoring=factoring,
                    )
            except Busy:
                batch.busy.append(matrix)
                continue
            except InputError as error:
                raise InputError(f"{matrix.ref}: {error}") from None
            batch.ready.append(built := Built(str(matrix.ref), keys[0][1], computed))
            on_built(built)
    return batch
