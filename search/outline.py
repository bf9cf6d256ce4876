"""What a study is, as far as it is known before weights are read, and what it can find."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.plan import Plan
from search.weights.matrices import Matrix
from tasks.parts import PartSize
from tasks.power import HITS, detectable

FLOAT32_BYTES = 4
PROCESS_BYTES = 2**29
"""What a worker takes beside its model: the libraries, the questions, what a pass computes."""


@dataclass(frozen=True)
class Outline:
    """`matrices`: (address, shape [out, in]). `compositions` None: not counted, or infinitely many.

    `trials`: how many will be made. `parts`: questions and groups. `smallest_gain`: by task, of
    those whose answers are hits or misses, the gain (0 to 1) that test finds in 80 of 100 cases;
    None where test is too small for any. `budgets`: the most parameters that
    these matrices may have, by the share that was asked for.
    """

    matrices: tuple[tuple[str, tuple[int, int]], ...]
    compositions: int | None
    trials: int
    parts: tuple[PartSize, ...]
    smallest_gain: dict[str, float | None]
    budgets: dict[float, int] = field(default_factory=dict)

    @staticmethod
    def of(plan: Plan) -> Outline:
        """The outline of a checked plan."""
        size = plan.space.size(plan.max_ranks)
        gains: dict[str, float | None] = {}
        for goal in plan.objective.goals:
            if goal.metric in HITS:
                groups = {x.group for x in plan.split.test if x.task == goal.task}
                gains[goal.task] = detectable(len(groups))
        return Outline(
            tuple((str(matrix.ref), matrix.shape) for matrix in plan.searched),
            None if math.isinf(size) else int(size),
            int(min(plan.config.search.trials, size)),
            tuple(size for size in plan.sizes if size.questions),
            gains,
            {} if (own := plan.space.budget) is None else {k: own.limit(k) for k in own.kept},
        )

    def line(self) -> str:
        """For people: the matrices, and how many compositions there are of them."""
        shapes: dict[str, int] = defaultdict(int)
        for address, (out, into) in self.matrices:
            shapes[f"{address.rpartition('.')[2]} {out}x{into}"] += 1
        kinds = ", ".join(f"{count} {shape}" for shape, count in shapes.items())
        count = "any number of" if self.compositions is None else f"{self.compositions:,}"
        return (
            f"space: {len(self.matrices)} matrices ({kinds}), {count} compositions, "
            f"{self.trials:,} trials{self._within()}"
        )

    def _within(self) -> str:
        if not self.budgets:
            return ""
        whole = sum(out * into for _, (out, into) in self.matrices)
        each = " or ".join(f"{limit:,} ({kept:.1%})" for kept, limit in self.budgets.items())
        return f", within {each} of {whole:,} parameters"


def factor_bytes(matrices: Sequence[Matrix], factorings: int = 1) -> int:
    """What the factors of `matrices` take on disk, of every rank in float32."""
    return sum(map(one_factor_bytes, matrices)) * factorings


def one_factor_bytes(matrix: Matrix) -> int:
    """U [out, k], S [k] and V [in, k] of one matrix, k = min(out, in)."""
    return FLOAT32_BYTES * matrix.max_rank * (sum(matrix.shape) + 1)


def size_text(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
