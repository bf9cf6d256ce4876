"""Gradients of a loss in weight matrices, from what a backward pass shows of the linear maps.

For a map y = W x the gradient is G = Σ_t δ_t x_tᵀ over tokens t, with δ = ∂L/∂y. What a cut needs
of it is uᵢᵀ G vᵢ = Σ_t (uᵢᵀ δ_t) (vᵢᵀ x_t), which takes less than forming G where tokens are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from search.weights.matrices import Matrix
from search.weights.thin import takes_factors


@dataclass(frozen=True)
class WholeGradient:
    """A gradient `values` [out, in], float32."""

    values: Tensor

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.values.device

    def whole(self) -> Tensor:
        """G [out, in], float32."""
        return self.values

    def along(self, U: Tensor, V: Tensor) -> Tensor:
        """uᵢᵀ G vᵢ [r] for the rows of `U` [r, out] and `V` [r, in], float32."""
        return ((U @ self.values) * V).sum(-1)

    def inner(self, weight: Tensor) -> Tensor:
        """⟨G, W⟩, float64, of `weight` [out, in]."""
        return (weight.float() * self.values).sum(dtype=torch.float64)


@dataclass(frozen=True)
class TokenGradient:
    """A gradient Σ_t δ_t x_tᵀ: `slopes` δ [out, tokens] and `inputs` x [in, tokens], float32."""

    slopes: Tensor
    inputs: Tensor

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.slopes.device

    @cached_property
    def _whole(self) -> WholeGradient:
        return WholeGradient(self.slopes @ self.inputs.T)

    def whole(self) -> Tensor:
        """G [out, in], float32."""
        return self._whole.values

    def along(self, U: Tensor, V: Tensor) -> Tensor:
        """uᵢᵀ G vᵢ [r] for the rows of `U` [r, out] and `V` [r, in], float32, the cheaper way."""
        out, tokens = self.slopes.shape
        into, rank = len(self.inputs), len(U)
        if tokens * rank * (out + into) > out * into * (tokens + rank):
            return self._whole.along(U, V)
        return ((U @ self.slopes) * (V @ self.inputs)).sum(-1)

    def inner(self, weight: Tensor) -> Tensor:
        """⟨G, W⟩, float64, of `weight` [out, in]."""
        return ((weight.float() @ self.inputs) * self.slopes).sum(dtype=torch.float64)


Gradient = WholeGradient | TokenGradient
Take = Callable[[Matrix, Gradient], None]
"""Told a part of a matrix's gradient: there is one for each time that its module was called."""


@contextmanager
def noting_calls(modules: Iterable[nn.Module]) -> Iterator[set[int]]:
    """Within, collect the identities of those of `modules` that are called."""
    called: set[int] = set()
    with ExitStack() as stack:
        for module in modules:
            note = partial(_note, called)
            stack.callback(module.register_forward_hook(note).remove)
        yield called


def _note(called: set[int], module: nn.Module, arguments: Any, output: Any) -> None:
    called.add(id(module))


@contextmanager
def gradients_of(
    model: nn.Module, matrices: Iterable[Matrix], called: set[int], take: Take
) -> Iterator[None]:
    """Within, a backward pass tells `take` the gradients of `matrices`, one after the other.

    Of linear maps that are `called` (see `noting_calls`) they are taken token by token, so that
    none is formed; a model may also read a weight without calling its module, and stacks of experts
    are no linear maps: of those the parameter's own gradient is taken. Nothing of them is kept, and
    no parameter has a gradient afterwards.
    """
    own: dict[int, tuple[nn.Module, nn.Parameter, list[Matrix]]] = {}
    parameters = dict(model.named_parameters())
    for matrix in matrices:
        parameter = parameters[matrix.parameter]
        module = model.get_submodule(matrix.module)
        own.setdefault(id(parameter), (module, parameter, []))[2].append(matrix)
    anchor = torch.zeros((), requires_grad=True)
    before = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
    with ExitStack() as stack:
        for parameter, wanted in before:
            stack.callback(parameter.requires_grad_, wanted)
            parameter.requires_grad_(False)
        for module, parameter, found in own.values():
            if id(module) in called and takes_factors(module):
                watch = partial(_watch, anchor, found, take)
                stack.callback(module.register_forward_hook(watch).remove)
            else:
                parameter.requires_grad_(True)
                hook: Any = parameter.register_post_accumulate_grad_hook(
                    partial(_drop, found, take)
                )  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
        yield


def _drop(matrices: list[Matrix], take: Take, parameter: Tensor) -> None:
    """Tell the gradient that a parameter has got, and free it."""
    if parameter.grad is not None:
        for matrix in matrices:
            take(matrix, WholeGradient(matrix.read(parameter.grad).float()))
    parameter.grad = None


def _watch(
    anchor: Tensor,
    matrices: list[Matrix],
    take: Take,
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    output: Tensor,
) -> Tensor:
    """Pass the output of a linear map on, so that its slopes are told when they are known."""

    def tell(slopes: Tensor, inputs: Tensor) -> None:
        rows = slopes.flatten(0, -2).T.float()
        given = inputs.to(slopes.device).flatten(0, -2).T.float()
        for matrix in matrices:
            own = matrix.view.of_outputs(rows)
            take(matrix, TokenGradient(own.reshape(matrix.shape[0], -1), given))

    found: Tensor = _Told.apply(output, arguments[0], anchor, tell)  # type: ignore[no-untyped-call]
    return found


class _Told(torch.autograd.Function):
    """The identity, which tells what is asked of it on the way back.

    Autograd keeps the inputs, and refuses if the model wrote over them in the meantime. `anchor`
    has a gradient, so that there is a way back although no parameter has one.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, inputs: Tensor, anchor: Tensor, tell: Callable[..., None]
    ) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.tell = tell
        return output.clone()  # which the model may write over

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.tell(slopes, *ctx.saved_tensors)
        return slopes, None, None, None
