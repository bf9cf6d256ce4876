"""Where a forward pass stops being a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The module whose output is the first in a pass to hold NaN or infinity; None if none does.

    `run` makes the passes; it is ended at the first such output. Of modules within each other the
    innermost is named, for it is the first to return. `model` is left as it was.
    """

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if not all(bool(torch.isfinite(tensor).all()) for tensor in _floats(output)):
                raise _FoundError(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        run()
    except _FoundError as found:
        return str(found)
    except ArithmeticError:  # the failure that is being looked into, by nothing that a module gave
        return None
    finally:
        for handle in handles:
            handle.remove()
    return None


class _FoundError(Exception):
    """Carries a module's name out of a pass."""


def _floats(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from _floats(tuple(output.values()))
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _floats(part)
