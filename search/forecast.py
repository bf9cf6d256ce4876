"""A plan before the price: what a study will compute, what it needs, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from search.cuts.composition import Composition
from search.missing import Missing, own_factors
from search.outline import PROCESS_BYTES, Outline, factor_bytes, size_text
from search.phases import SILENT, Phases, duration
from search.plan import Plan
from search.rehearsal import MOST, rehearse
from search.storing import worth_a_process
from search.strategies.base import Setting
from search.strategies.registry import strategy_class
from search.timing import Timing, measure
from search.weights.matrices import Matrix
from search.weights.memory import BUDGET_BYTES
from tasks.errors import InputError
from tasks.parts import sizes_text

OVERHEAD_S = 0.05
"""What a trial takes beside its questions: Ray's messages, the study's record, its outcomes."""

RAY_S = 4.0
"""What Ray takes to start and to end, beside the programs that it starts."""


@dataclass(frozen=True)
class Workers:
    """How many evaluate at once, with `threads` each, on `device`; `cores` compute factors.

    `import_s`: seconds until a process of this program has loaded its libraries. `notices`: that
    memory does not hold them.
    """

    workers: int
    threads: int
    cores: int
    device: str
    import_s: float
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """What a launch of a plan would do. Seconds of wall time, by phase, and in all."""

    outline: Outline
    missing: Missing
    factor_bytes: int
    missing_bytes: int
    worker_bytes: int
    mapped_bytes: int
    svd_bytes: int
    timing: Timing
    workers: Workers
    phases_s: dict[str, float]
    trial_s: float
    notices: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Seconds from the command to the verdict."""
        return sum(self.phases_s.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        outline = asdict(self.outline)
        outline["matrices"] = [
            {"address": address, "shape": list(shape)} for address, shape in self.outline.matrices
        ]
        facts = {
            name: getattr(self, name)
            for name in (
                *("factor_bytes", "missing_bytes", "worker_bytes", "mapped_bytes"),
                *("svd_bytes", "trial_s"),
            )
        }
        return {
            **outline,
            "missing_factors": self.missing.names,
            **facts,
            "timing": asdict(self.timing),
            "workers": asdict(self.workers),
            "phases_s": self.phases_s,
            "total_s": self.total_s,
            "notices": list(self.notices),
        }

    def lines(self) -> list[str]:
        """For people."""
        outline, timing, workers = self.outline, self.timing, self.workers
        lacking = len(self.missing.factors)
        by_block = timing.trial_s
        first, last = min(by_block), max(by_block)
        spent = ", ".join(
            f"{name} {duration(seconds)}" for name, seconds in self.phases_s.items() if seconds
        )
        return [
            outline.line(),
            sizes_text(outline.parts),
            *(f"note: {text}" for text in self.notices),
            f"factors: {lacking} to compute, {self.missing.sets - lacking} ready; "
            f"{size_text(self.missing_bytes)} more on disk, {size_text(self.factor_bytes)} in all; "
            f"at most {size_text(self.svd_bytes)} of memory for each process that computes them",
            f"workers: {workers.workers} on {workers.device}, {workers.threads} threads each; "
            f"at most {size_text(self.worker_bytes)} of memory each for weights, activations and "
            f"factors{self._mapped_text()}",
            f"timed: {timing.batch_questions} questions in {timing.batch_s:.3g} s; a trial takes "
            f"{by_block[first]:.3g} s if its first cut is in block {first}, {by_block[last]:.3g} s "
            f"in block {last}, {self.trial_s:.3g} s on average{self._guard_text()}",
            f"time: about {duration(self.total_s)} ({spent})",
        ]

    def _mapped_text(self) -> str:
        """What of the weights stays in their files."""
        if not self.mapped_bytes:
            return ""
        return f", and {size_text(self.mapped_bytes)} of files that all share (model.mapped)"

    def _guard_text(self) -> str:
        """What a limit on general text adds to a trial."""
        spent = self.timing.sample_s
        return f"; at most {spent:.3g} s of it for general text (guard.worse_by)" if spent else ""


def foresee(plan: Plan, workers: Workers, phases: Phases = SILENT) -> Forecast:
    """What a launch of `plan` would take on this machine. Writes nothing. Raises InputError."""
    _check_memory(plan, workers)
    outline = Outline.of(plan)
    timing, missing = measure(plan, workers.device, workers.threads, phases)
    kinds = own_factors(plan)
    tried = _rehearsed(plan, outline.trials)
    if len(tried) < min(outline.trials, MOST):  # the strategy has nothing left to try before
        outline = replace(outline, trials=len(tried))
    mean_s = _mean_trial_s(timing, tried)
    at_once = min(2, workers.workers)
    # One worker scores the winner from its first cut on, two score both sides in full at once.
    sides = 2.0 if at_once > 1 else 1 + _mean_share(timing, tried)
    phases_s = {
        "start": RAY_S + 2 * workers.import_s,
        "calibration": timing.calibration.seconds,
        "factors": _factors_s(plan, timing, workers),
        "loading": at_once * workers.import_s + timing.load_s,
        **_before_trials_s(plan, timing, workers),
        "trials": mean_s * outline.trials / workers.workers,
        "test": sides * timing.test_s / at_once,
        "general text": sides * timing.guard_s / at_once,
    }
    return Forecast(
        outline,
        missing,
        factor_bytes(plan.searched, 1 + len(kinds)),
        missing.bytes + timing.calibration.bytes,
        _worker_bytes(plan, 1 + len(kinds)),
        plan.model_bytes - plan.held_bytes,
        max((_svd_bytes(matrix) for matrix, _ in missing.factors), default=0),
        timing,
        workers,
        phases_s,
        mean_s,
        (*plan.notices, *plan.prospects, *workers.notices, *_elsewhere(plan)),
    )


def _check_memory(plan: Plan, workers: Workers) -> None:
    """Raises InputError if the model, which is about to be timed, is larger than free memory."""
    free = psutil.virtual_memory().available
    if workers.device == "cpu" and plan.held_bytes > free:
        raise InputError(
            f"the model takes {size_text(plan.held_bytes)} of memory, and this machine has "
            f"{size_text(free)} free; set model.mapped, use a narrower model.dtype, or a machine "
            "with more"
        )


def _worker_bytes(plan: Plan, factorings: int) -> int:
    """A process, its weights and activations, and what it keeps of factors and edited matrices."""
    kept = min(BUDGET_BYTES, factor_bytes(plan.searched, factorings))
    originals = sum(m.shape[0] * m.shape[1] * m.dtype.itemsize for m in plan.searched)
    activations = int(plan.config.reuse.memory_gib * 2**30)
    own = plan.held_bytes + PROCESS_BYTES
    return own + activations + kept + min(BUDGET_BYTES, originals)


def _factors_s(plan: Plan, timing: Timing, workers: Workers) -> float:
    """By processes of their own, or by the driver where that is quicker."""
    alone = plan.config.cluster.address is None and workers.device == "cpu"
    if alone and not worth_a_process(plan.source, plan.searched):
        return timing.svd_s
    return timing.svd_s / workers.cores + workers.import_s


def _before_trials_s(plan: Plan, timing: Timing, workers: Workers) -> dict[str, float]:
    """The unedited model and the screen, whose pieces all workers make.

    Workers of one machine share what they record, where it lies in files; elsewhere each records
    for itself.
    """
    wants_screen = strategy_class(plan.config.search.strategy).wants_screen
    waits = wants_screen or plan.objective.needs_baseline
    shared = waits and workers.device == "cpu" and plan.config.reuse.file_gib > 0
    return {
        "baseline": timing.baseline_s / (workers.workers if shared else 1),
        "screen": timing.screen_s / workers.workers if wants_screen else 0.0,
    }


def _elsewhere(plan: Plan) -> list[str]:
    """What cannot be known from here."""
    address = plan.config.cluster.address
    if address is None:
        return []
    return [f"workers and times are those of this machine, not of the cluster at {address}"]


def _rehearsed(plan: Plan, trials: int) -> list[Composition]:
    search = plan.config.search
    setting = Setting(plan.space, plan.max_ranks, search.seed, search.objectives)
    return rehearse(search, setting, trials)


def _mean_trial_s(timing: Timing, tried: Sequence[Composition]) -> float:
    """Seconds of a trial on average, by which compositions the strategy would try."""
    blocks = timing.block_of
    firsts = [min(blocks[str(i.matrix)] for i in one.interventions) for one in tried]
    return OVERHEAD_S + sum(timing.trial_s[at] for at in firsts) / max(1, len(firsts))


def _mean_share(timing: Timing, tried: Sequence[Composition]) -> float:
    """What a pass from the first cut takes of a whole one, on average over `tried`."""
    whole = timing.trial_s[min(timing.trial_s)]
    return min(1.0, (_mean_trial_s(timing, tried) - OVERHEAD_S) / whole)


def _svd_bytes(matrix: Matrix) -> int:
    """A process, the matrix and its copy in float64, and the larger of two moments of the SVD.

    The solver holds the Gram matrix, its eigenvectors and as much work space as two more; after it
    there are the vectors of both sides. See `search.weights.svd`.
    """
    count, gram = matrix.shape[0] * matrix.shape[1], matrix.max_rank**2
    solver, vectors = count + 4 * gram, 2 * count + gram
    return PROCESS_BYTES + matrix.dtype.itemsize * count + 8 * max(solver, vectors)
