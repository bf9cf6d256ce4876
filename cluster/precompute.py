"""Factors before the first trial: one Ray task per matrix, largest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ray
from ray.exceptions import RayTaskError

from search.model import ModelSource
from search.weights.factors import FactorCache, content_key
from search.weights.matrices import Matrix
from search.weights.origin import WeightOrigin
from tasks.errors import InputError


def factor_matrices(
    source: ModelSource, matrices: Sequence[Matrix], root: str, threads: int
) -> dict[str, str]:
    """Read matrices, compute the factors that the cache lacks; return content keys by address."""
    import torch

    torch.set_num_threads(threads)
    origin = WeightOrigin(source)
    keys = {}
    with FactorCache(root) as cache:
        for matrix in matrices:
            weight = origin.read(matrix)
            key = content_key(weight)
            cache.ensure(weight, key, f"{source.path}:{matrix.ref}")
            keys[str(matrix.ref)] = key
    return keys


def precompute(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: Path,
    on_progress: Callable[[int, int], None],
    *,
    gpus: float = 0.0,
    threads: int = 1,
) -> dict[str, str]:
    """Make sure that the cache at `root` has every matrix's factors; return keys by address.

    A killed run is taken up where it was: finished factors are found by content. Matrices that the
    checkpoint's files do not hold as they are share one task, which loads the model once.
    """
    task = ray.remote(factor_matrices).options(num_cpus=1, num_gpus=gpus, max_retries=3)
    origin = WeightOrigin(source)
    ordered = sorted(matrices, key=lambda m: -m.shape[0] * m.shape[1])
    groups = [[matrix] for matrix in ordered if origin.is_direct(matrix)]
    loaded = [matrix for matrix in ordered if not origin.is_direct(matrix)]
    groups = ([loaded] if loaded else []) + groups
    pending = [task.remote(source, group, str(root), threads) for group in groups]
    keys: dict[str, str] = {}
    on_progress(0, len(ordered))
    while pending:
        done, pending = ray.wait(pending)
        try:
            for found in ray.get(done):
                keys |= found
        except RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None  # the sentence, not the task's traceback
            raise
        on_progress(len(keys), len(ordered))
    return keys
