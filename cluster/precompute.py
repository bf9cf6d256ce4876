"""Factors before the first trial: a Ray task for each large matrix, largest first.

Where Ray is on its machine the driver itself looks for what is there, and computes what is a
second's work in all: a task is another process, which imports torch for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from cluster.orphan import end_with
from cluster.resources import Resources
from search.locations import absolute_location
from search.model import ModelSource
from search.origin import WeightOrigin
from search.storing import (
    PROCESS_WORK,
    Built,
    MatrixBatch,
    Storing,
    ensure_factors,
    find_factors,
    quick_to_find,
    worth_a_process,
)
from search.study.lock import Holder
from search.weights.matrices import Matrix
from search.weights.svd import work_of
from tasks.errors import InputError

CHECK_S = 0.2


def factor_matrices(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str,
    shares: Resources,
    storing: Storing,
    wait: bool,
    driver: Holder | None = None,
) -> MatrixBatch:
    """`ensure_factors` by a task of Ray, on its GPU if it has one. Raises InputError."""
    import torch

    if driver is not None:
        end_with(driver)
    torch.set_num_threads(shares.threads)
    device = "cuda" if shares.gpus and torch.cuda.is_available() else "cpu"
    return ensure_factors(source, matrices, root, storing, device, wait)


def precompute(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str | os.PathLike[str],
    shares: Resources,
    storing: Storing,
    on_built: Callable[[Built], None],
    check: Callable[[], None] = lambda: None,
    here: bool = False,
) -> dict[str, str]:
    """Make sure that the cache at `root` has every matrix's factors; return keys by address.

    A killed run is taken up where it was: finished factors are found by content. Matrices that the
    checkpoint's files do not hold as they are share one task, which loads the model once. What
    another builder on the same folder has begun is passed over and waited for at the end, so two
    of them share the work. `on_built` hears of each matrix that is ready. `here`: the cluster
    is this machine alone.
    `check` is called several times a second; what it raises ends the wait. Raises InputError if a
    matrix has no SVD or the folder refuses it; what is finished stays.
    """
    place = absolute_location(root)  # workers have a working folder of their own
    ordered = sorted(matrices, key=lambda m: -cost(m))
    keys: dict[str, str] = {}

    def hear(built: Built) -> None:
        keys[built.address] = built.key
        on_built(built)

    def heard(built: Built) -> None:
        hear(built)
        check()

    if here and ordered and quick_to_find(source, ordered):
        ordered = find_factors(source, ordered, place, storing, heard)
    if here and ordered and not shares.gpus and not worth_a_process(source, ordered):
        ordered = _in_this_process(source, ordered, place, shares, storing, heard)
    if ordered:
        _by_tasks(source, ordered, place, shares, storing, hear, check)
    return keys


def _by_tasks(
    source: ModelSource,
    ordered: Sequence[Matrix],
    root: str,
    shares: Resources,
    storing: Storing,
    hear: Callable[[Built], None],
    check: Callable[[], None],
) -> None:
    import ray  # here, for Ray reads its settings when it is imported

    driver = Holder.here()
    task = ray.remote(factor_matrices).options(
        num_cpus=1, num_gpus=min(1.0, shares.gpus), max_retries=3
    )

    def submit(group: Sequence[Matrix], wait: bool) -> Any:
        return task.remote(source, group, root, shares, storing, wait, driver)

    pending = [submit(group, False) for group in _groups(source, ordered)]
    busy: list[Matrix] = []
    while pending:
        check()
        done, pending = ray.wait(pending, timeout=CHECK_S)
        if not done:
            continue
        for batch in answers_of(done, pending):
            busy += batch.busy
            for built in batch.ready:
                hear(built)
        if not pending and busy:
            pending, busy = [submit(group, True) for group in _groups(source, busy)], []


def cost(matrix: Matrix) -> float:
    """What the SVD of `matrix` takes, in proportion."""
    return work_of(matrix.shape)


def _in_this_process(
    source: ModelSource,
    ordered: Sequence[Matrix],
    root: str,
    shares: Resources,
    storing: Storing,
    heard: Callable[[Built], None],
) -> list[Matrix]:
    """As a task would compute them; returns what another builder has claimed."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(shares.threads)
    try:
        batch = ensure_factors(source, ordered, root, storing, "cpu", wait=False, on_built=heard)
    finally:
        torch.set_num_threads(before)
    return batch.busy


def _groups(source: ModelSource, ordered: Sequence[Matrix]) -> list[list[Matrix]]:
    origin = WeightOrigin(source)
    direct = [origin.is_direct(matrix) for matrix in ordered]
    loaded = [matrix for matrix, there in zip(ordered, direct, strict=True) if not there]
    stored = [matrix for matrix, there in zip(ordered, direct, strict=True) if there]
    return ([loaded] if loaded else []) + together(stored)


def together(ordered: Sequence[Matrix]) -> list[list[Matrix]]:
    """`ordered`, largest first, in groups that are worth a task: together at least PROCESS_WORK.

    Another task is another process, which imports torch for seconds.
    """
    groups: list[list[Matrix]] = []
    work = 0.0
    for matrix in ordered:
        if not groups or work >= PROCESS_WORK:
            groups.append([])
            work = 0.0
        groups[-1].append(matrix)
        work += cost(matrix)
    return groups


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
