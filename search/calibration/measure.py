"""One pass over the unedited model: the second moments of all inputs that are asked for."""

from __future__ import annotations

import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search.calibration.operands import Operands, Unit, identity_of
from search.calibration.rows import Row, batches
from search.cuts.refs import MatrixRef
from search.weights.matrices import Matrix, all_matrices
from search.weights.moments import MomentStore, SecondMoment
from tasks.errors import InputError

BUDGET_BYTES = 4 * 2**30
"""What the sums of one pass may take; of more inputs there are several passes."""

TIMED_TOKENS = 4096
"""About how many tokens are read to time a pass."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passes:
    """What a calibration would take: seconds of its passes, bytes of what it stores."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Inputs:
    """Which inputs a model's matrices have: `of` the unit of each matrix, one for equal inputs."""

    of: Mapping[MatrixRef, Unit]
    widths: Mapping[Unit, int]

    @staticmethod
    def find(model: Any, first: Sequence[Row]) -> Inputs:
        """Units whose inputs are one tensor in a forward pass over the `first` rows are one.

        q, k and v, gate and up. The first of them in the order of addresses gives the name.
        """
        matrices = all_matrices(model)
        seen: dict[Unit, list[tuple[Any, ...]]] = defaultdict(list)
        held: list[Tensor] = []  # so that no other input takes the memory of one

        def note(unit: Unit, rows: Tensor) -> None:
            held.append(rows)
            seen[unit].append(identity_of(rows))

        _run(model, matrices, first, note)
        names: dict[tuple[Any, ...], Unit] = {}
        of, widths = {}, {}
        for matrix in matrices:
            unit = Unit(matrix.parameter, matrix.view.expert)
            same = names.setdefault(tuple(seen[unit]), unit) if seen[unit] else unit
            if same.expert != unit.expert:  # another expert got the same rows in this one pass
                same = unit
            of[matrix.ref] = same
            widths[same] = matrix.shape[1]
        return Inputs(of, widths)


def measure(
    model: Any,
    wanted: Sequence[MatrixRef],
    rows: Sequence[Row],
    store: MomentStore,
    calibration: str,
    *,
    budget_bytes: int = BUDGET_BYTES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[MatrixRef, SecondMoment]:
    """Have the second moments of the inputs of `wanted` in `store`; those that are there stay.

    C = Σ x xᵀ / tokens, products and sums in float64 from inputs in the model's dtype. Inputs are
    measured in groups whose sums fit in `budget_bytes`, each in a pass of its own, and stored when
    their group is done: a run that was killed goes on with the next group. Raises InputError if an
    input is not finite, or a matrix never multiplies.
    """
    inputs = Inputs.find(model, rows[:1])
    needed = list(dict.fromkeys(inputs.of[ref] for ref in wanted))
    found = {unit: store.find(calibration, str(unit)) for unit in needed}
    missing = [unit for unit in needed if found[unit] is None]
    done = len(needed) - len(missing)
    on_progress(done, len(needed))
    for group in _groups(missing, inputs.widths, budget_bytes):
        sums = _sums(model, group, inputs.widths, rows)
        for unit in group:
            second, tokens = sums.result(unit)
            found[unit] = store.save(calibration, str(unit), second, tokens)
        done += len(group)
        on_progress(done, len(needed))
    return {ref: one for ref in wanted if (one := found[inputs.of[ref]]) is not None}


def stored(
    model: Any, wanted: Sequence[MatrixRef], rows: Sequence[Row], store: MomentStore, name: str
) -> dict[MatrixRef, SecondMoment]:
    """The second moments of the inputs of `wanted` that calibration `name` left in `store`."""
    of = Inputs.find(model, rows[:1]).of
    found = {unit: store.find(name, str(unit)) for unit in {of[ref] for ref in wanted}}
    return {ref: one for ref in wanted if (one := found[of[ref]]) is not None}


def foresee_passes(
    model: Any,
    missing: Sequence[MatrixRef],
    rows: Sequence[Row],
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> Passes:
    """What measuring the inputs of `missing` would take, by timing one pass over a few `rows`."""
    inputs = Inputs.find(model, rows[:1])
    units = list(dict.fromkeys(inputs.of[ref] for ref in missing))
    groups = list(_groups(units, inputs.widths, budget_bytes))
    if not groups:
        return Passes(0.0, 0)
    tokens = sum(row.tokens for row in rows)
    few = rows[:: max(1, tokens // TIMED_TOKENS)]
    started = time.perf_counter()
    _sums(model, groups[0], inputs.widths, few)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    spent = time.perf_counter() - started
    share = tokens / sum(row.tokens for row in few)
    return Passes(spent * share * len(groups), sum(8 * inputs.widths[u] ** 2 for u in units))


class Sums:
    """Sums of x xᵀ [in, in], float64, of a group of units, where their inputs are."""

    def __init__(self, group: Sequence[Unit], widths: Mapping[Unit, int]) -> None:
        self._widths = {unit: widths[unit] for unit in group}
        self._sums: dict[Unit, Tensor] = {}
        self._tokens: dict[Unit, int] = dict.fromkeys(group, 0)

    def add(self, unit: Unit, rows: Tensor) -> None:
        """Take the inputs x [tokens, in] of a product; rows of zeros are of no token."""
        if unit not in self._widths or not len(rows):
            return
        home = rows.device if rows.device.type != "mps" else torch.device("cpu")
        wide = rows.to(home, torch.float64)
        if unit not in self._sums:
            width = self._widths[unit]
            self._sums[unit] = torch.zeros(width, width, dtype=torch.float64, device=home)
        self._sums[unit].addmm_(wide.T, wide)
        self._tokens[unit] += int(wide.any(-1).sum())

    def result(self, unit: Unit) -> tuple[Tensor, int]:
        """(C [in, in], the tokens it is the mean of); zeros of an expert that received none.

        Raises InputError if it is not finite, or a matrix that is no expert's never multiplied.
        """
        width, tokens = self._widths[unit], self._tokens[unit]
        if not tokens:
            if unit.expert is None and "expert" not in unit.parameter:
                raise InputError(
                    f"{unit.parameter} is not used in a forward pass that can be observed, so its "
                    "inputs cannot be measured; exclude its matrices, or use plain cuts for them"
                )
            _log.warning("%s received no calibration tokens; its cuts are plain", unit)
            return torch.zeros(width, width, dtype=torch.float64), 0
        total = self._sums.pop(unit)
        if not bool(torch.isfinite(total).all()):
            raise InputError(
                f"the inputs of {unit} on the calibration texts are not finite; "
                "load the model in a wider dtype"
            )
        return (total + total.T).cpu() / (2 * tokens), tokens


def _sums(
    model: Any, group: Sequence[Unit], widths: Mapping[Unit, int], rows: Sequence[Row]
) -> Sums:
    """The sums of one group, by a pass over all rows."""
    sums = Sums(group, widths)
    names = {unit.parameter for unit in group}
    matrices = [m for m in all_matrices(model) if m.parameter in names]
    _run(model, matrices, rows, sums.add)
    return sums


def _run(
    model: Any,
    matrices: Sequence[Matrix],
    rows: Sequence[Row],
    seen: Callable[[Unit, Tensor], None],
) -> None:
    """Forward passes over all rows; `seen` is told what the parameters of `matrices` multiply."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    widths = {matrix.parameter: matrix.shape[1] for matrix in matrices}
    prefix = f"{model.base_model_prefix}."
    inside = all(name.startswith(prefix) for name in widths)
    body = model.base_model if inside else model  # logits cost much, and are needed by few
    device = model.get_input_embeddings().weight.device
    options = {"use_cache": False} if "use_cache" in _parameters(body) else {}
    watched = {name: parameters[name] for name in widths}
    with torch.no_grad(), Operands(watched, widths, seen):
        for inputs in batches(rows, device):
            body(**inputs, **options)


def _parameters(module: Any) -> Mapping[str, Any]:
    return inspect.signature(module.forward).parameters


def _groups(
    units: Sequence[Unit], widths: Mapping[Unit, int], budget_bytes: int
) -> Iterator[list[Unit]]:
    """Units in their order, in groups whose sums fit in the budget; one alone may be larger."""
    group: list[Unit] = []
    held = 0
    for unit in units:
        size = 8 * widths[unit] ** 2
        if group and held + size > budget_bytes:
            yield group
            group, held = [], 0
        group.append(unit)
        held += size
    if group:
        yield group
