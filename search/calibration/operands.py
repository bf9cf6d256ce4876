"""What weights multiply: every matrix product of a forward pass that has a parameter in it.

The products themselves are watched, below all modules, so linear maps, Conv1D, fused weights and
stacks of experts are seen alike, whatever code calls them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, order=True)
class Unit:
    """A parameter, or one expert's part of it: all its rows multiply the same inputs."""

    parameter: str
    expert: int | None = None

    def __str__(self) -> str:
        """The name of the input, of which files of second moments speak."""
        return self.parameter if self.expert is None else f"{self.parameter}[{self.expert}]"


Seen = Callable[[Unit, Tensor], None]
"""Told of each product: which unit, and its inputs x [tokens, in] in the order of the tokens."""

_PAIRS: Mapping[str, tuple[int, int]] = {
    "aten::mm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::bmm": (0, 1),
    "aten::baddbmm": (1, 2),
    "aten::linear": (0, 1),
    "aten::mv": (0, 1),
    "aten::addmv": (1, 2),
    "aten::_grouped_mm": (0, 1),
    "transformers::grouped_mm_fallback": (0, 1),
}
"""Products by name, with the places of their two factors; products of other names become these."""


class Operands(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, calls `seen` for each product with one of `parameters` of the CPU or a GPU.

    `widths`: inputs [in] of each parameter by name; of a product with such a parameter, that
    dimension is summed over.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], widths: Mapping[str, int], seen: Seen
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = seen
        placed = sorted((p.data_ptr(), p.nbytes, name) for name, p in parameters.items())
        self._starts = [start for start, _, _ in placed]
        self._placed = placed
        self._parameters = dict(parameters)
        self._widths = dict(widths)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation; tell of it first if it is such a product."""
        pair = _PAIRS.get(func._schema.name)
        if pair is not None:
            self._tell(args[pair[0]], args[pair[1]], (*args[2:], *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))

    def _tell(self, left: Tensor, right: Tensor, rest: Iterable[Any]) -> None:
        for weight, other, transposed in ((right, left, False), (left, right, True)):
            name = self._name_of(weight)
            if name is None:
                continue
            rows = other.transpose(-2, -1) if transposed and other.dim() > 1 else other
            if weight.dim() == 2:
                self._seen(self._unit(name, weight), rows.reshape(-1, self._widths[name]))
            elif rows.dim() == 3:  # a batched product: one expert after the other
                for expert, part in enumerate(rows):
                    self._seen(Unit(name, expert), part)
            else:  # grouped: where the rows of each expert end
                ends = next(item for item in rest if isinstance(item, Tensor)).tolist()
                for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                    self._seen(Unit(name, expert), rows[start:end])
            return

    def _name_of(self, tensor: Tensor) -> str | None:
        """The parameter in whose memory `tensor` lies, if there is one."""
        at = bisect_right(self._starts, place := tensor.data_ptr()) - 1
        if at < 0:
            return None
        start, size, name = self._placed[at]
        return name if place < start + size else None

    def _unit(self, name: str, weight: Tensor) -> Unit:
        parameter = self._parameters[name]
        if parameter.dim() < 3:
            return Unit(name)
        each = parameter.nbytes // len(parameter)
        return Unit(name, (weight.data_ptr() - parameter.data_ptr()) // each)


def identity_of(rows: Tensor) -> tuple[Any, ...]:
    """Equal for inputs that are one piece of memory; only while both are held."""
    return (rows.data_ptr(), tuple(rows.shape), rows.stride(), rows.device, rows._version)
