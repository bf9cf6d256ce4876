"""The factors of a checkpoint, computed by themselves: what `laser-search decompose` does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from cluster.course import Decomposed, FactorCourse
from cluster.precompute import Storing, precompute
from cluster.preemption import Preemption
from cluster.resources import divide, living_nodes
from search.config import ClusterConfig
from search.interruption import Interrupted, ending_of_command
from search.model import ModelSource
from search.phases import SILENT, Phases
from search.space import choose_types
from search.weights.matrices import Matrix, all_matrices
from search.weights.remote import check_factors, open_factors
from search.weights.selection import expand
from tasks.errors import InputError


def decompose_checkpoint(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str | os.PathLike[str],
    storing: Storing,
    ray_address: str | None,
    phases: Phases = SILENT,
) -> Decomposed:
    """Have the factors of `matrices` in the cache at `root`, by all nodes of a Ray cluster.

    Without `ray_address`, by this machine. Raises InputError; what is finished stays.
    """
    from cluster.session import ray_session

    check_factors(root)
    phases.enter("starting Ray" if ray_address is None else f"joining Ray at {ray_address}")
    config = ClusterConfig(address=ray_address)
    preemption = Preemption(ending=_ending)
    with preemption, ray_session(config, preemption):
        shares = divide(config, living_nodes())
        course = FactorCourse(phases, matrices)
        check = partial(_check, preemption)
        keys = precompute(source, matrices, root, shares, storing, course.built, check)
        done = course.result()
    if ray_address is None:  # nodes of a cluster may share a folder that is not this machine's
        check_built(root, keys)
    return done


def check_built(root: str | os.PathLike[str], keys: Mapping[str, str]) -> None:
    """Raise InputError unless the cache at `root` has the factors of `keys` (key by address)."""
    with open_factors(root) as cache:
        there = set(cache.keys())
    if lost := [address for address, key in keys.items() if key not in there]:
        raise InputError(
            f"{root} does not hold the factors of {', '.join(lost[:3])}, which were just computed; "
            "check that the folder is on this machine's disk and that nothing empties it"
        )


CONTINUES = "the same command continues where it was"


def _ending(number: int) -> tuple[int, str]:
    return ending_of_command(number, CONTINUES)


def _check(preemption: Preemption) -> None:
    if preemption.asked is not None:
        raise Interrupted(preemption.asked, CONTINUES)


def choose(
    source: ModelSource, types: Sequence[str], addresses: Sequence[str]
) -> tuple[Matrix, ...]:
    """The matrices of these types, or at these addresses; all that can be searched if neither.

    Raises InputError on names that the model lacks.
    """
    matrices = all_matrices(source.skeleton())
    pool = [matrix for matrix in matrices if matrix.searchable]
    wanted = {ref for pattern in addresses for ref in expand(pattern, matrices)}
    if types:
        kinds = choose_types(list(types), list(dict.fromkeys(m.ref.type for m in pool)), "--types")
        wanted |= {matrix.ref for matrix in pool if matrix.ref.type in kinds}
    if not types and not addresses:
        wanted = {matrix.ref for matrix in pool}
    if not wanted:
        raise InputError(f"{source.path} has no weight matrix that can be searched")
    return tuple(matrix for matrix in matrices if matrix.ref in wanted)
