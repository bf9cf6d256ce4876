"""Factors before the first trial: one Ray task per matrix, largest first."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.orphan import end_with
from cluster.resources import Resources
from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.kinds.triples import reach
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import fraction_of
from search.locations import absolute_location
from search.model import ModelSource
from search.origin import WeightOrigin
from search.space import Space
from search.study.lock import Holder
from search.weights.factors import Busy
from search.weights.matrices import Matrix
from search.weights.remote import open_factors
from search.weights.svd import work_of
from tasks.errors import InputError

CHECK_S = 0.2


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
    """A task's answer: the matrices that are ready, and those that another builder has claimed."""

    ready: list[Built]
    busy: list[Matrix]


def factor_matrices(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str,
    shares: Resources,
    storing: Storing,
    wait: bool,
    driver: Holder | None = None,
) -> MatrixBatch:
    """Read matrices and compute the factors that the cache lacks, on the GPU if there is one.

    Without `wait`, matrices that another process has claimed come back as busy. Raises InputError
    that names the matrix.
    """
    import torch

    if driver is not None:
        end_with(driver)
    torch.set_num_threads(shares.threads)
    device = "cuda" if shares.gpus and torch.cuda.is_available() else "cpu"
    origin = WeightOrigin(source)
    batch = MatrixBatch([], [])
    with open_factors(root, storing.dtype) as cache:
        for matrix in matrices:
            weight = origin.read(matrix)
            where = f"{source.path}:{matrix.ref}"
            key, computed = cache.key(weight), False
            try:
                for factoring in storing.factorings(matrix):
                    computed |= cache.ensure(
                        weight.to(device),
                        key if factoring is None else cache.key(weight, factoring),
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
            batch.ready.append(Built(str(matrix.ref), key, computed))
    return batch


def precompute(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str | os.PathLike[str],
    shares: Resources,
    storing: Storing,
    on_built: Callable[[Built], None],
    check: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Make sure that the cache at `root` has every matrix's factors; return keys by address.

    A killed run is taken up where it was: finished factors are found by content. Matrices that the
    checkpoint's files do not hold as they are share one task, which loads the model once. What
    another builder on the same folder has begun is passed over and waited for at the end, so two
    of them share the work. `on_built` hears of each matrix that is ready.
    `check` is called several times a second; what it raises ends the wait. Raises InputError if a
    matrix has no SVD or the folder refuses it; what is finished stays.
    """
    import ray  # here, for Ray reads its settings when it is imported

    place = absolute_location(root)  # workers have a working folder of their own
    driver = Holder.here()
    ordered = sorted(matrices, key=lambda m: -cost(m))
    task = ray.remote(factor_matrices).options(
        num_cpus=1, num_gpus=min(1.0, shares.gpus), max_retries=3
    )

    def submit(group: Sequence[Matrix], wait: bool) -> Any:
        return task.remote(source, group, place, shares, storing, wait, driver)

    pending = [submit(group, False) for group in _groups(source, ordered)]
    keys: dict[str, str] = {}
    busy: list[Matrix] = []
    while pending:
        check()
        done, pending = ray.wait(pending, timeout=CHECK_S)
        if not done:
            continue
        for batch in answers_of(done, pending):
            busy += batch.busy
            for built in batch.ready:
                keys[built.address] = built.key
                on_built(built)
        if not pending and busy:
            pending, busy = [submit(group, True) for group in _groups(source, busy)], []
    return keys


def cost(matrix: Matrix) -> float:
    """What the SVD of `matrix` takes, in proportion."""
    return work_of(matrix.shape)


def _groups(source: ModelSource, ordered: Sequence[Matrix]) -> list[list[Matrix]]:
    origin = WeightOrigin(source)
    direct = [origin.is_direct(matrix) for matrix in ordered]
    loaded = [matrix for matrix, there in zip(ordered, direct, strict=True) if not there]
    singles = [[matrix] for matrix, there in zip(ordered, direct, strict=True) if there]
    return ([loaded] if loaded else []) + singles


def answers_of(done: Sequence[Any], pending: Sequence[Any] = ()) -> list[Any]:
    """What tasks of Ray answered; bad input, which Ray wraps, stops what has not begun."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        answers: list[Any] = ray.get(list(done))
    except RayTaskError as error:
        for other in pending:
            ray.cancel(other)
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise
    return answers
