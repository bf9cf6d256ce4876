"""A linear module that multiplies by two thin factors instead of its weight, for the while."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search.weights.factor_file import Factors

WORTH_IT = 0.5
"""Multiplications of the factors over those of the weight, up to which they are used: two thin
products run slower per multiplication than one, see the break-even in docs/log.md."""


def takes_factors(module: nn.Module) -> bool:
    """Whether the module is nothing but x Wᵀ + b: nn.Linear, or GPT-2's Conv1D."""
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def is_worth_it(rank: int, shape: tuple[int, int]) -> bool:
    """Whether the factors of this rank multiply less than half of what [out, in] does."""
    return rank * sum(shape) <= WORTH_IT * shape[0] * shape[1]


class ThinMap:
    """Stands in for a module's forward: x V diag(S) Uᵀ + b with U [r, out], V [r, in].

    The factors are rounded to the weight's dtype, each by itself, so that results differ from those
    of the dense product by its rounding. `undo` puts the module's own forward back.
    """

    def __init__(self, module: nn.Module, factors: Factors, rank: int, weight: Tensor) -> None:
        """Take the module over; nothing of its parameters changes."""
        U, V = factors.U[:rank], factors.V[:rank]
        spectrum = factors.spectrum[:rank].to(V.device)
        self._down = (spectrum[:, None] * V).to(weight.device, weight.dtype)
        self._up = U.T.to(weight.device, weight.dtype).contiguous()
        self._module: Any = module
        self._own = module.__dict__.get("forward")
        self._module.forward = self

    def __call__(self, hidden: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        narrow = torch.nn.functional.linear(hidden, self._down)
        return torch.nn.functional.linear(narrow, self._up, self._module.bias)

    def undo(self) -> None:
        """Give the module its own forward back."""
        if self._own is None:
            del self._module.forward
        else:
            self._module.forward = self._own
