"""The factors of a checkpoint, computed by themselves: what `laser-search decompose` does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from cluster.calibrate import calibrate
from cluster.course import Decomposed, FactorCourse
from cluster.precompute import precompute
from cluster.preemption import Preemption
from cluster.resources import divide, living_nodes
from search.calibration.calibration import Calibration, shortfalls
from search.calibration.texts import texts_of_data
from search.cuts.level import Level
from search.cuts.rules import RankRule
from search.interruption import Interrupted, ending_of_command
from search.model import ModelSource
from search.phases import SILENT, Phases
from search.sections import CalibrationConfig, ClusterConfig
from search.space import choose_types
from search.storing import Storing
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
    calibration: Calibration | None = None,
) -> Decomposed:
    """Have the factors of `matrices` in the cache at `root`, by all nodes of a Ray cluster.

    Without `ray_address`, by this machine. `calibration`: what is measured first, for kinds of cut
    that need it. Raises InputError; what is finished stays.
    """
    from cluster.session import ray_session

    check_factors(root)
    phases.enter("starting Ray" if ray_address is None else f"joining Ray at {ray_address}")
    config = ClusterConfig(address=ray_address)
    preemption = Preemption(ending=_ending)
    with preemption, ray_session(config, preemption):
        shares = divide(config, living_nodes())
        check = partial(_check, preemption)
        if calibration is not None:
            phases.enter("calibrating")
            inputs = calibrate(calibration, os.fspath(root), shares, check)
            storing = replace(storing, inputs=inputs)
            for sentence in shortfalls(inputs):
                phases.note(f"note: {sentence}")
        course = FactorCourse(phases, matrices)
        here = ray_address is None
        keys = precompute(source, matrices, root, shares, storing, course.built, check, here)
        done = course.result()
    if ray_address is None:  # nodes of a cluster may share a folder that is not this machine's
        check_built(root, keys)
    return done


def kinds_storing(max_rho: float, dtype: str, kinds: Sequence[str]) -> Storing:
    """What is stored for `kinds` of cut, beside the exact factors. Raises InputError."""
    levels = tuple(Level(RankRule("rho", max_rho), kind) for kind in kinds)
    for level in levels:
        if not level.made_by.needs_factors:
            raise InputError(f"--kind {level.kind}: this kind of cut has no factors; remove it")
    return Storing(max_rho, dtype, levels, every_rank=True)


def calibration_for(
    source: ModelSource, matrices: Sequence[Matrix], storing: Storing, data: str | None
) -> Calibration | None:
    """What is measured before factors of `matrices` are made; None if none needs it.

    Raises InputError where it is needed and there is no `data`.
    """
    needy = [level.kind for level in storing.levels if level.made_by.needs_inputs]
    if not needy:
        return None
    if data is None:
        raise InputError(
            f"--kind {needy[0]} needs texts for calibration; give --calibration FILE or a hub "
            "data set that contains none of your test questions"
        )
    usual = CalibrationConfig()
    texts = texts_of_data(data, (), usual.tokens, usual.seed)
    return Calibration(source, tuple(matrix.ref for matrix in matrices), texts)


def check_built(root: str | os.PathLike[str], keys: Mapping[str, str]) -> None:
    """Raise InputError unless the cache at `root` has the factors of `keys` (key by address)."""
    with open_factors(root) as cache:
        there = set(cache.keys())
    if lost := [address for address, key in keys.items() if key not in there]:
        raise InputError(
            f"{root} does not hold the factors of {', '.join(lost[:3])}, which were just computed; "
            "check that the folder is on this machine's disk and that nothing deletes its files"
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
