"""Stacks of blocks: where in a model the layers are, and which linear maps each holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from search.weights.layouts import Layout, layout_of
from tasks.errors import InputError

_STACK_NAMES = {
    "encoder": "encoder",
    "decoder": "decoder",
    "language_model": "text",
    "text_model": "text",
    "vision_tower": "vision",
    "vision_model": "vision",
    "visual": "vision",
    "audio_tower": "audio",
}
"""Component of a module path -> name of the stack, where a model has several stacks."""

_PACKED = ("qweight", "weight_packed", "weight_scale", "weight_scale_inv", "qzeros")
_LINEARS = ("NonDynamicallyQuantizableLinear",)
"""Classes of torch's own that are a Linear by another name."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class LinearMap:
    """A parameter of two dimensions [out, in], or three [experts, ...], that multiplies.

    `name` is the parameter's, `local` its name inside the block without ``.weight``, `module` its
    owner's name. `transposed`: stored as [in, out], as Conv1D and some expert stacks do.
    `alternate`: a stack of experts whose gate and up rows take turns, as transformers marks it.
    """

    name: str
    local: str
    module: str
    parameter: nn.Parameter
    transposed: bool
    alternate: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the stored weight, whole."""
        rows, columns = self.parameter.shape[-2:]
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(frozen=True)
class Block:
    """One layer: its module name and its linear maps in the order of the model."""

    name: str
    maps: list[LinearMap]


@dataclass
class Stack:
    """A list of blocks, with the configuration of the model that owns it."""

    path: str
    config: Any
    model_type: str
    blocks: list[Block] = field(default_factory=list)
    name: str = ""

    def uses(self, layout: Layout | None) -> int:
        """How many layers run with each block's weights: above 1 only in families that say so."""
        if layout is None or not layout.shared:
            return 1
        layers = int(getattr(self.config, "num_hidden_layers", len(self.blocks)))
        return max(1, layers // max(1, len(self.blocks)))


def find_stacks(model: nn.Module) -> list[Stack]:
    """The outermost lists of modules that hold two linear maps or more each, in model order.

    Names are given where there is more than one: ``encoder``, ``decoder``, ``vision``, ... Raises
    InputError on quantised or sharded weights in a block.
    """
    _refuse_quantised(getattr(model, "config", None))
    stacks: list[Stack] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        if any(path == s.path or path.startswith(f"{s.path}.") for s in stacks):
            continue
        config = _config_of(model, path)
        model_type = str(getattr(config, "model_type", ""))
        children = _blocks_of(module, path, layout_of(model_type))
        blocks = [Block(name, _linear_maps(child, name)) for name, child in children]
        if not blocks or max(len(block.maps) for block in blocks) < 2:
            continue
        if isinstance(module, nn.Sequential) and len({type(c) for _, c in children}) > 1:
            continue
        stacks.append(Stack(path, config, model_type, blocks))
    _name(stacks)
    return stacks


def _config_of(model: nn.Module, path: str) -> Any:
    """The configuration of the innermost module around `path` that has one."""
    config = getattr(model, "config", None)
    parts = path.split(".")
    for end in range(1, len(parts)):
        owner = model.get_submodule(".".join(parts[:end]))
        own = getattr(owner, "config", None)
        config = own if getattr(own, "model_type", None) else config
    return config


def _blocks_of(module: nn.Module, path: str, layout: Layout | None) -> list[tuple[str, nn.Module]]:
    children = [(f"{path}.{name}", child) for name, child in module.named_children()]
    if layout is None or not layout.inner:
        return children
    return [
        (f"{name}.{layout.inner}.{index}", inner)
        for name, child in children
        for index, inner in child.get_submodule(layout.inner).named_children()
    ]


def _linear_maps(block: nn.Module, path: str) -> list[LinearMap]:
    found = []
    for name, module in block.named_modules():
        _refuse_packed(module, f"{path}.{name}")
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if not _multiplies(module, own, parameter):
                continue
            local = ".".join(part for part in (name, own) if part)
            _refuse_unusable(parameter, f"{path}.{local}")
            found.append(
                LinearMap(
                    name=f"{path}.{local}",
                    local=local.removesuffix(".weight"),
                    module=f"{path}.{name}" if name else path,
                    parameter=parameter,
                    transposed=_is_transposed(module, parameter),
                    alternate=getattr(module, "is_concatenated", True) is False,
                )
            )
    return found


def _multiplies(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether the parameter is a weight of a linear map, not a table, a bias or a kernel."""
    if parameter.ndim == 2:
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return False
        return name == "weight" or name.endswith(("_proj", "_weight")) or name in ("w1", "v1", "w2")
    return parameter.ndim == 3 and (
        name.endswith("_proj") or (name == "weight" and type(module).__name__.endswith("Experts"))
    )


def _is_transposed(module: nn.Module, parameter: nn.Parameter) -> bool:
    if type(module).__name__ == "Conv1D":
        return True
    # transformers marks expert stacks that are stored as [experts, in, out].
    return parameter.ndim == 3 and getattr(module, "is_transposed", False) is True


def _refuse_quantised(config: Any) -> None:
    plan = getattr(config, "quantization_config", None)
    if plan:
        found = plan.get("quant_method") if isinstance(plan, dict) else plan.quant_method
        # An enumeration of transformers prints with its class's name.
        raise InputError(_quantised("the checkpoint", str(getattr(found, "value", found))))


def _refuse_packed(module: nn.Module, name: str) -> None:
    packed = [b for b, _ in module.named_buffers(recurse=False) if b in _PACKED]
    if packed or type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
        raise InputError(_quantised(name, type(module).__name__))


def _refuse_unusable(parameter: nn.Parameter, name: str) -> None:
    if parameter.dtype not in _FLOATS:
        raise InputError(_quantised(name, str(parameter.dtype).removeprefix("torch.")))
    if hasattr(parameter, "placements"):
        raise InputError(
            f"{name} is sharded over several processes (DTensor); load the whole model on each "
            "worker, or spread its layers with device_map instead"
        )


def _quantised(name: str, what: str) -> str:
    return (
        f"{name} is quantised ({what}); a rank reduction needs the weights themselves, so load "
        "the model unquantised, e.g. its original checkpoint with dtype bfloat16"
    )


def outside_maps(model: nn.Module, stacks: list[Stack]) -> list[LinearMap]:
    """The linear layers of a model that are in none of its `stacks`, in the order of the model.

    Only modules that are a Linear or Conv1D: what else multiplies outside of blocks is a table of
    positions or the like. `local` is the module's name without that of the base model.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '') or '.'}."
    found = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{stack.path}.") for stack in stacks)
        if inside or type(module).__name__ not in ("Linear", "Conv1D", *_LINEARS):
            continue
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
            continue
        _refuse_packed(module, name)
        _refuse_unusable(weight, f"{name}.weight")
        found.append(
            LinearMap(
                name=f"{name}.weight",
                local=name.removeprefix(prefix),
                module=name,
                parameter=weight,
                transposed=_is_transposed(module, weight),
            )
        )
    return found


def _name(stacks: list[Stack]) -> None:
    """Name the stacks of a model with several, each differently and in letters alone."""
    if len(stacks) < 2:
        return
    common = set.intersection(*(set(stack.path.split(".")) for stack in stacks))
    taken: set[str] = set()
    for stack in stacks:
        parts = stack.path.split(".")
        known = [_STACK_NAMES[part] for part in parts if part in _STACK_NAMES]
        own = "".join(part for part in parts if part not in common) or "main"
        letters = "".join(c for c in own.lower() if "a" <= c <= "z") or "stack"
        name = known[0] if known and known[0] not in taken else letters
        while name in taken:
            name += "x"
        taken.add(name)
        stack.name = name
