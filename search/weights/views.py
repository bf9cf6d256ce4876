"""Views: where in a parameter one matrix [out, in] lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """The rows of one matrix inside a parameter that may be transposed, fused or stacked.

    The parameter is first reduced to the expert `expert` (first dimension of a 3-D stack), then
    transposed to [fused out, in] if `transposed` (GPT-2's Conv1D stores [in, out]). The fused rows
    are `outer` equal periods; the matrix takes `width` rows from `offset` on in each of them, all
    rows if `width` is 0. One period is a plain split; one period per head is GPT-NeoX's layout; a
    period of two rows is GPT-OSS's alternation of gate and up.
    """

    expert: int | None = None
    transposed: bool = False
    outer: int = 1
    offset: int = 0
    width: int = 0

    def shape(self, parameter: torch.Size | tuple[int, ...]) -> tuple[int, int]:
        """(out, in) of the matrix in a parameter of this shape."""
        rows, columns = parameter[-2:]
        if self.transposed:
            rows, columns = columns, rows
        return (self.outer * self.width if self.width else rows, columns)

    def of(self, parameter: Tensor) -> Tensor:
        """The matrix as a strided view [outer, width, in] that shares `parameter`'s memory."""
        matrix = parameter if self.expert is None else parameter[self.expert]
        if self.transposed:
            matrix = matrix.T
        # Splitting a dimension never copies, whatever the strides.
        periods = torch.unflatten(matrix, 0, (self.outer, matrix.shape[0] // self.outer))
        return periods[:, self.offset : self.offset + self.width] if self.width else periods

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """The matrix's own of what the parameter's map puts out: `outputs` [fused out, ...].

        A strided view [outer, width, ...], as `of` has the rows of the weight.
        """
        return View(None, False, self.outer, self.offset, self.width).of(outputs)
