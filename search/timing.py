"""One timed batch of a study's questions, and from it what its trials take."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from search.calibration.measure import Passes, foresee_passes, stored
from search.calibration.rows import RowMaker
from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.base import Factoring, Inputs, Kind
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.missing import Missing
from search.phases import SILENT, Phases
from search.plan import Plan, open_asked
from search.reuse.activations import GIB, Room
from search.study.jobs import Job
from search.study.screening import SCREENED_EXAMPLES
from search.weights.matrices import Matrix
from search.weights.remote import open_moments
from search.weights.svd import decompose, work_of
from search.weights.whitening import whitening
from tasks.base import Example
from tasks.guarded import Guarded

REPEATS, LONG_S = 2, 10.0
"""Of each measurement the fastest counts: other programs only slow one down. What took longer than
`LONG_S` is not repeated: a plan is to be short, and a model near the size of memory is read again
from its files by every pass."""

BACKWARD = 5.0
"""A piece of a screen, in forward passes: what is asked, again with a gradient, and projections."""

TRIED_RANK = 512
"""The largest matrix whose SVD is timed; longer ones are reckoned from it."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one worker, for all questions of a part.

    `batch_s`: the one batch that was timed, of `batch_questions`, in full. `trial_s`: a trial by
    the block of its first edit, in the order of the model, and `block_of` that of each matrix by
    address; what is outside the blocks counts to the first, as nothing is reused for it.
    `sample_s`: of the first of these, what the general text takes that a limit is held to; 0
    without one. `baseline_s`: with recording the activations that trials begin from. `test_s`: one
    model on test, `guard_s` on the general text of the verdict. `calibration`: the passes that
    measure what matrices are given. `svd_s`: of all factors that are missing, on one core.
    """

    load_s: float
    batch_questions: int
    batch_s: float
    baseline_s: float
    screen_s: float
    trial_s: Mapping[int, float]
    sample_s: float
    test_s: float
    guard_s: float
    calibration: Passes
    svd_s: float
    block_of: Mapping[str, int]


def measure(
    plan: Plan, device: str, threads: int, phases: Phases = SILENT
) -> tuple[Timing, Missing]:
    """Load the model, and time one batch from a few blocks; and the factors that are missing.

    Writes nothing. Raises InputError.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        phases.enter("loading the model")
        with tempfile.TemporaryDirectory() as scratch:
            return _measure(plan, device, Path(scratch), phases)
    finally:
        torch.set_num_threads(before)


def _measure(plan: Plan, device: str, scratch: Path, phases: Phases) -> tuple[Timing, Missing]:
    validation = plan.split.validation
    few = sample(validation, plan.config.tokens_per_batch)
    share = len(few) / len(validation)
    started = time.perf_counter()
    evaluator = _open(plan, few, device, scratch, share)
    load_s = time.perf_counter() - started
    phases.enter("timing a batch")
    tokens = {part: evaluator.tokens(part) for part in ("validation", "all", "test")}
    scale = tokens["all"] / tokens["validation"]
    first = evaluator.evaluate(Job("baseline", Composition(), "", "validation")).seconds
    full = _least(partial(evaluator.seconds_of_pass, "validation"))
    blocks = evaluator.passes.prefix.blocks
    places = {ref: blocks.place_of.get(ref, 0) for ref in plan.space.matrices}
    known = {place: _fastest(evaluator, ref) for place, ref in _probes(places).items()}
    asked = {place: found[0] for place, found in known.items()}
    read = {place: found[1] for place, found in known.items()}
    evaluator.close()
    guard_s = _seconds_of_general_text(evaluator)
    calibration, inputs = _calibration(plan, evaluator.editor.model)
    apply_s = _seconds_of_product(plan.searched, device)
    missing = Missing.of(plan, inputs, phases)
    phases.enter("timing an SVD")
    at = sorted(set(places.values()))
    timing = Timing(
        load_s,
        len(few),
        full,
        (first.get("record", 0.0) + first["prepare"] + full) * scale + first.get("guard", 0.0),
        BACKWARD * (full * min(SCREENED_EXAMPLES, len(validation)) / len(few) + read[at[0]]),
        {p: _between(asked, p) * scale + _between(read, p) + apply_s for p in at},
        read[at[0]],
        full * tokens["test"] / tokens["validation"],
        guard_s,
        calibration,
        _seconds_of_factors(missing),
        {str(ref): place for ref, place in places.items()},
    )
    return timing, missing


def _least(seconds: Callable[[], float]) -> float:
    """The least of `REPEATS` measurements, or the first where that was a long one."""
    found = [seconds()]
    while len(found) < REPEATS and found[0] < LONG_S:
        found.append(seconds())
    return min(found)


def sample(examples: Sequence[Example], tokens: int) -> list[Example]:
    """Evenly many questions of every length, about one batch of `tokens` by four letters a token.

    All of them where they are not many more.
    """
    ordered = sorted(examples, key=lambda example: len(example.prompt))
    mean = sum(len(example.prompt) for example in ordered) / len(ordered) / 4 + 2
    count = max(8, int(tokens / mean))
    if count >= len(ordered):
        return list(examples)
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def _open(
    plan: Plan, few: Sequence[Example], device: str, scratch: Path, share: float
) -> Evaluator:
    """The evaluator of a worker, with activations' room in proportion to the sample."""
    config = plan.config
    reuse = config.reuse
    memory, host = (int(gib * GIB * share) for gib in (reuse.memory_gib, reuse.host_gib))
    texts = plan.parts["guard"]
    parts = {
        "validation": few,
        "all": plan.split.validation,
        "test": plan.split.test,
        "guard": sample(texts, config.tokens_per_batch) if texts else (),
        "all guard": texts,
        "sample": plan.parts["sample"],
    }
    task = Guarded(open_asked(config, plan.source.head))
    questions = Questions(task, parts, objective=plan.objective)
    searched = frozenset(plan.space.matrices)
    hosting = Hosting(device, config.tokens_per_batch, searched, Room(memory, host))
    return open_evaluator(plan.source, questions, scratch, hosting)


def _probes(places: Mapping[MatrixRef, int]) -> dict[int, MatrixRef]:
    """A matrix of the first, the middle and the last block that is searched, by block."""
    by_place = {place: ref for ref, place in places.items()}
    at = sorted(by_place)
    chosen = {at[0], at[len(at) // 2], at[-1]}
    return {place: by_place[place] for place in sorted(chosen)}


def _fastest(evaluator: Evaluator, ref: MatrixRef) -> tuple[float, float]:
    """Seconds of asking the sample with one matrix zero, and of the general text beside it."""
    cut = Composition((Intervention(ref, Level.parse("zero")),))
    found = [
        evaluator.evaluate(Job("trial", cut, "", "validation")).seconds for _ in range(REPEATS)
    ]
    return (
        min(spent["forward"] + spent["score"] for spent in found),
        min(spent.get("guard", 0.0) for spent in found),
    )


def _between(known: Mapping[int, float], place: int) -> float:
    """The seconds at `place`, on the line between the two measured places around it."""
    at = sorted(known)
    low = max((p for p in at if p <= place), default=at[0])
    high = min((p for p in at if p >= place), default=at[-1])
    if low == high:
        return known[low]
    return known[low] + (known[high] - known[low]) * (place - low) / (high - low)


def _seconds_of_product(matrices: Sequence[Matrix], device: str) -> float:
    """What writing one cut takes: two factors multiplied, at half the ranks of a middle matrix."""
    where = "cpu" if device == "cpu" else "cuda"
    middle = sorted(matrices, key=lambda m: m.shape[0] * m.shape[1])[len(matrices) // 2]
    rank = max(1, middle.max_rank // 2)
    left = torch.ones(middle.shape[0], rank, device=where)
    right = torch.ones(rank, middle.shape[1], device=where)
    found = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        (left @ right).sum().item()
        found.append(time.perf_counter() - started)
    return min(found)


def _seconds_of_general_text(evaluator: Evaluator) -> float:
    """One model's seconds on the general text of the verdict, by timing a batch of it."""
    whole = evaluator.tokens("all guard")
    if not whole:
        return 0.0
    fastest = _least(partial(evaluator.seconds_of_pass, "guard"))
    return fastest * whole / evaluator.tokens("guard")


def _calibration(plan: Plan, model: Any) -> tuple[Passes, Mapping[MatrixRef, Inputs]]:
    """What a calibration takes that is still to be made, and what the cache has of it."""
    calibration = plan.calibration
    if calibration is None:
        return Passes(0.0, 0), {}
    rows = RowMaker(model, plan.source).rows(calibration.texts)
    store = open_moments(plan.config.factors)
    known = stored(model, calibration.refs, rows, store, calibration.name)
    return foresee_passes(model, [ref for ref in calibration.refs if ref not in known], rows), known


@dataclass(frozen=True)
class _Drawn:
    """Inputs of `width` at random, for timing factors that are made from inputs."""

    width: int
    digest: str = ""

    def read(self) -> torch.Tensor:
        rows = torch.randn(self.width, self.width, generator=torch.Generator().manual_seed(0))
        return (rows.T @ rows).double()

    def whitening(self) -> Factoring:
        return whitening(self.digest, self.read)


def _seconds_of_factors(missing: Missing) -> float:
    """One core's seconds for factors, by timing for each kind one of the cheapest's shape."""
    shapes: dict[Kind | None, list[Sequence[int]]] = defaultdict(list)
    for matrix, kind in missing.factors:
        shapes[kind].append(matrix.shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sum(_seconds_of_kind(kind, found) for kind, found in shapes.items())
    finally:
        torch.set_num_threads(threads)


def _seconds_of_kind(kind: Kind | None, shapes: Sequence[Sequence[int]]) -> float:
    def work(shape: Sequence[int]) -> float:  # eigenvectors of what it is given, then an SVD
        needy = kind is not None and kind.needs_inputs
        return work_of(shape) + (shape[1] ** 3 if needy else 0.0)

    least = min(shapes, key=work)
    shrunk = min(1.0, TRIED_RANK / min(least))
    tried = (max(1, int(least[0] * shrunk)), max(1, int(least[1] * shrunk)))
    weight = torch.randn(tried, generator=torch.Generator().manual_seed(0))
    factoring = None if kind is None else kind.factoring_on(_Drawn(tried[1]))
    made = decompose if factoring is None else factoring.decompose
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        made(weight)
        found.append(time.perf_counter() - started)
    return min(found) * sum(map(work, shapes)) / work(tried)
