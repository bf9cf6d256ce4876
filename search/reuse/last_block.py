"""The last block computes only what is scored: keys and values of all positions, the rest of few.

Queries, the attention's output projection and the MLP work position by position, and nothing reads
the other positions of the last block. Its linear maps (its MLP as a whole, where that is one module
of one input) are given the scored positions alone; elsewhere their output is zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from search.reuse.batching import Batch
from search.reuse.outputs import forwarding
from search.weights.matrices import Matrix

POSITIONWISE = ("q_proj", "out_proj", "fc_in", "fc_up", "fc_out")
DENSE = 0.5
"""Above this share of scored positions, picking costs more than it saves."""


class LastBlock:
    """The position-wise modules of the last block of a model."""

    def __init__(self, model: nn.Module, matrices: Iterable[Matrix], block: str) -> None:
        """`block`: its module name. Experts and fused projections are left alone."""
        own = [
            m
            for m in matrices
            if m.block == block
            and m.ref.type in POSITIONWISE
            and m.ref.expert is None
            and not (m.view.width and m.ref.type == "q_proj")
        ]
        linears = {m.module for m in own if not m.ref.type.startswith("fc_")}
        mlp = {m.module for m in own if m.ref.type.startswith("fc_") and not m.ref.cross}
        self.names = sorted(linears | _outermost(model, mlp, block))
        self._modules = [model.get_submodule(name) for name in self.names]
        # The batch is held, so that no other one takes its identity.
        self._places: dict[int, tuple[Batch, Tensor]] = {}

    @contextmanager
    def only(self, batch: Batch) -> Iterator[None]:
        """Within, the block's position-wise modules see the scored places of `batch` alone."""
        rows, width = batch.input_ids.shape
        if not self._modules or len(batch.rows) > DENSE * rows * width:
            yield
            return
        places = self._of(batch)
        with ExitStack() as stack:
            for module in self._modules:
                stack.enter_context(_picking(module, places, (rows, width)))
            yield

    def _of(self, batch: Batch) -> Tensor:
        """The scored places [places] of a batch, found once: a GPU is waited for to count them."""
        if id(batch) not in self._places:
            width = batch.input_ids.shape[1]
            self._places[id(batch)] = (batch, torch.unique(batch.rows * width + batch.positions))
        return self._places[id(batch)][1]


def _outermost(model: nn.Module, names: set[str], block: str) -> set[str]:
    """The module around all of `names` if it maps one tensor to one, else each one's own."""
    if not names:
        return set()
    parts = [name.split(".") for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    around = ".".join(common)
    if around.startswith(f"{block}.") and _takes_one(model.get_submodule(around)):
        return {around}
    return {_wrapper(model, name, block) for name in names}


def _wrapper(model: nn.Module, name: str, block: str) -> str:
    """The module around one linear map that adds an activation to it, such as BERT's."""
    parent = name.rpartition(".")[0]
    if parent.startswith(f"{block}.") and _takes_one(model.get_submodule(parent)):
        return parent
    return name


def _takes_one(module: nn.Module) -> bool:
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return False
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
    return len(needed) == 1 and needed[0].kind == inspect.Parameter.POSITIONAL_OR_KEYWORD


@contextmanager
def _picking(module: nn.Module, places: Tensor, shape: tuple[int, int]) -> Iterator[None]:
    whole: Callable[..., Any] = module.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        hidden = arguments[0] if arguments else None
        alone = len(arguments) == 1 and not options
        if not isinstance(hidden, Tensor) or hidden.shape[:-1] != shape or not alone:
            return whole(*arguments, **options)
        at = places.to(hidden.device)
        found = whole(hidden.flatten(0, 1)[at].unsqueeze(0))
        if not isinstance(found, Tensor):
            return whole(*arguments)
        result = found.new_zeros(shape[0] * shape[1], found.shape[-1])
        result[at] = found[0]
        return result.view(*shape, -1)

    with forwarding(module, forward):
        yield
