"""The factors of a checkpoint, computed by themselves: what `laser-search decompose` does."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cluster.precompute import Built, Storing, cost, precompute
from cluster.preemption import Preemption
from cluster.resources import divide, living_nodes
from cluster.view import PLAIN_S
from search.config import ClusterConfig
from search.interruption import Interrupted, ending_of_command
from search.model import ModelSource
from search.report.live import duration
from search.space import choose_types
from search.weights.matrices import Matrix, find_matrices
from search.weights.remote import check_factors, open_factors
from search.weights.selection import expand
from tasks.errors import InputError


@dataclass(frozen=True)
class Decomposed:
    """How many matrices were computed here, and how many were there or made by another."""

    computed: int
    ready: int
    seconds: float


def decompose_checkpoint(
    source: ModelSource,
    matrices: Sequence[Matrix],
    root: str | os.PathLike[str],
    storing: Storing,
    ray_address: str | None,
    console: Console,
) -> Decomposed:
    """Have the factors of `matrices` in the cache at `root`, by all nodes of a Ray cluster.

    Without `ray_address`, by this machine. Raises InputError; what is finished stays.
    """
    from cluster.session import ray_session

    check_factors(root)
    config = ClusterConfig(address=ray_address)
    preemption = Preemption(ending=_ending)
    with preemption, ray_session(config, preemption):
        shares = divide(config, living_nodes())
        with BuildView(console, matrices) as view:
            keys = precompute(
                source,
                matrices,
                root,
                shares,
                storing,
                lambda built, ready: view.built(built),
                partial(_check, preemption),
            )
    if ray_address is None:  # nodes of a cluster may share a folder that is not this machine's
        check_built(root, keys)
    return view.result()


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
    matrices = find_matrices(source.skeleton())
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


class BuildView:
    """Progress of the factors: a bar in a terminal, a line now and then elsewhere.

    The time left is reckoned by the work that SVDs of their shapes are, and from what was computed
    here: matrices that were ready took none. Use it as a context manager.
    """

    def __init__(self, console: Console, matrices: Sequence[Matrix]) -> None:
        """Nothing is shown before the context is entered."""
        self._console = console
        self._costs = {str(matrix.ref): cost(matrix) for matrix in matrices}
        self._left = sum(self._costs.values())
        self._worked = 0.0
        self._count = {True: 0, False: 0}
        self._started = self._shown = time.monotonic()
        self._bar = Progress(
            TextColumn("factors"), BarColumn(), TextColumn("{task.description}"), console=console
        )
        self._task = self._bar.add_task("", total=self._left)

    def __enter__(self) -> BuildView:
        """Start the bar where there is a terminal."""
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar."""
        self._bar.stop()

    def built(self, built: Built) -> None:
        """Note a matrix that is ready now."""
        price = self._costs[built.address]
        self._left -= price
        self._worked += price if built.computed else 0.0
        self._count[built.computed] += 1
        line = self._line(built.address)
        self._bar.update(self._task, advance=price, description=line)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._shown >= PLAIN_S:
            self._shown = now
            self._console.print(f"factors: {line}", highlight=False, soft_wrap=True)

    def _line(self, address: str) -> str:
        elapsed = time.monotonic() - self._started
        left = ""
        if self._worked and self._left > 0:
            left = f", about {duration(elapsed * self._left / self._worked)} left"
        return f"{sum(self._count.values())}/{len(self._costs)} {address}{left}"

    def result(self) -> Decomposed:
        """The counts so far."""
        seconds = time.monotonic() - self._started
        return Decomposed(self._count[True], self._count[False], seconds)
