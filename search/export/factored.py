"""The edited matrices as two thin linear layers each: smaller, faster, and trainable.

    from search.export.factored import load_factored
    model = load_factored("my-model")

The model is the original's own class with some of its linear layers replaced, so a Trainer trains
it, `save_pretrained` saves it and `load_factored` loads what was saved.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.cuts.kinds.triples import reach
from search.durable import write_json
from search.export.base import Base, Placed
from search.export.dense import base_digest, dense_changes, original_of
from search.export.format import Format, Work, Written
from search.export.stream import Rewritten, WeightChange, rewrite, size_bytes
from search.model import ModelSource
from search.weights.factor_file import Factors
from search.weights.memory import FactorStore
from search.weights.products import Products
from tasks.errors import InputError

KEY = "laser_factored"
"""In config.json: the replaced modules by name, and the rank of each."""


class FactoredLinear(nn.Module):
    """y = up(weight x) + bias with `weight` [rank, in] and ``up.weight`` [out, rank].

    The first factor is called `weight` so that plain transformers, which would give a layer that it
    does not find random values, refuses the folder: the shape is not the one that it expects.
    """

    def __init__(
        self, into: int, out: int, rank: int, bias: bool, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rank, into, dtype=dtype))
        self.up = nn.Linear(rank, out, bias=bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        found: Tensor = self.up(nn.functional.linear(x, self.weight))
        return found


@dataclass(frozen=True)
class FactorPlan:
    """Which interventions become two layers (with rank), and why the others stay dense."""

    ranks: dict[str, int]
    factored: list[Placed]
    dense: list[Placed]
    reasons: dict[str, str]

    @property
    def thin_parameters(self) -> int:
        """Numbers in the weights of all pairs of layers."""
        return sum(self.ranks[p.matrix.module] * sum(p.matrix.shape) for p in self.factored)


def load_factored(folder: str | os.PathLike[str], **options: Any) -> Any:
    """The model in `folder`, which was exported as factored or saved from such a model.

    `options` are those of `from_pretrained`, such as dtype or device_map. No code from the folder
    is run. Raises InputError if the folder holds no factored model.
    """
    source = ModelSource(os.fspath(folder))
    ranks = getattr(source.config, KEY, None)
    if not isinstance(ranks, dict):
        raise InputError(
            f"{folder} contains no factored model; load it with transformers' from_pretrained"
        )
    architecture = type(source.skeleton())

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        architecture.__init__(self, config, *args, **kwargs)
        replace_layers(self, ranks)

    # from_pretrained builds the class and then fills its parameters by name, from any shards.
    kind: Any = type(architecture.__name__, (architecture,), {"__init__": build})
    kind.__module__ = architecture.__module__
    options = {"use_safetensors": True, "local_files_only": True, **options}
    model, info = kind.from_pretrained(source.folder, output_loading_info=True, **options)
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing[:3])}; export it again")
    return model.eval()


def replace_layers(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Replace linear layers (Linear or Conv1D) by empty FactoredLinear ones, in place."""
    for name, rank in ranks.items():
        owner, _, leaf = name.rpartition(".")
        old: Any = model.get_submodule(name)
        out, into = _dimensions(old)
        layer = FactoredLinear(into, out, rank, old.bias is not None, old.weight.dtype)
        setattr(model.get_submodule(owner), leaf, layer.to(old.weight.device))


def _dimensions(layer: Any) -> tuple[int, int]:
    """(out, in) of a Linear or Conv1D."""
    first, second = layer.weight.shape
    return (second, first) if type(layer).__name__ == "Conv1D" else (first, second)


def plan_factored(base: Base, placed: list[Placed], products: Products) -> FactorPlan:
    """Decide for each intervention.

    A matrix that would grow stays dense. Raises InputError if all would, or the files cannot be
    rewritten.
    """
    ranks: dict[str, int] = {}
    factored, dense, reasons = [], [], {}
    for one in placed:
        reason = _obstacle(base, one)
        if not reason:
            kept = _kept(base, one, products)
            out, into = one.matrix.shape
            rank = out * into if kept is None else len(kept)
            if kept is None:
                reason = "it is not a sum of exact singular triples"
            elif rank * (out + into) > out * into:
                reason = f"rank {rank} as two layers is larger than {out} x {into}"
        if reason:
            dense.append(one)
            reasons[str(one.matrix.ref)] = reason
        else:
            factored.append(one)
            ranks[one.matrix.module] = rank
    if not factored:
        name, reason = next(iter(reasons.items()))
        raise InputError(
            f"every edited matrix stays dense ({name}: {reason}); write it with --format dense"
        )
    if not all(one.tensor for one in dense):
        raise InputError(
            f"{base.source.path} stores edited matrices in another form than the model uses; "
            "export it as dense"
        )
    return FactorPlan(ranks, factored, dense, reasons)


def _kept(base: Base, one: Placed, products: Products) -> range | None:
    """Which triples stay; the matrix is read only where that depends on its spectrum."""
    cut = one.intervention
    if cut.rule.needs_spectrum:
        return products.kept(cut, base.origin.read(one.matrix))
    return cut.made_by.kept(cut.rule, one.matrix.shape)


def _obstacle(base: Base, one: Placed) -> str:
    """Why a matrix cannot be a layer of its own, or nothing."""
    module = base.skeleton.get_submodule(one.matrix.module)
    if type(module).__name__ not in ("Linear", "Conv1D", "NonDynamicallyQuantizableLinear"):
        return f"it is part of a {type(module).__name__}"
    if one.matrix.view.width or one.matrix.view.expert is not None:
        return "it shares one layer with other matrices"
    if not one.tensor:
        return "the checkpoint's files store it in another form than the model"
    if not one.tensor.endswith(".weight") or one.view.expert is not None:
        return "its tensor is not a layer's weight"
    return ""


def factored_changes(
    base: Base, plan: FactorPlan, products: Products, cast: torch.dtype | None
) -> dict[str, WeightChange]:
    """Changes of stored tensors: weights become two factors, biases move with the second."""
    changes = dense_changes(base, plan.dense, products, cast)
    for one in plan.factored:
        stem = one.tensor.removesuffix(".weight")
        rank = plan.ranks[one.matrix.module]
        out, into = one.matrix.shape
        shapes = {f"{stem}.weight": (rank, into), f"{stem}.up.weight": (out, rank)}
        changes[one.tensor] = WeightChange(shapes, _splitter(stem, one, products))
        bias = f"{stem}.bias"
        if bias in base.reader.files:
            moved = f"{stem}.up.bias"
            changes[bias] = WeightChange({moved: (out,)}, _mover(moved))
    return changes


def _splitter(
    stem: str, one: Placed, products: Products
) -> Callable[[Tensor], Mapping[str, Tensor]]:
    def make(stored: Tensor) -> Mapping[str, Tensor]:
        original = original_of(one, stored)
        kept = products.kept(one.intervention, original) or range(0)
        out, into = original.shape
        if kept:
            ranks = reach(kept, min(out, into))
            factors = products.factors(one.intervention, original, *ranks)
            up, down = balanced(factors, kept)
        else:
            up, down = torch.zeros(out, 0), torch.zeros(0, into)
        return {f"{stem}.weight": down, f"{stem}.up.weight": up}

    return make


def balanced(factors: Factors, kept: range) -> tuple[Tensor, Tensor]:
    """U √S [out, r] and √S Vᵀ [r, in] of these ranks, float32: equal norms train best."""
    U, V = factors.ranks(kept.start, kept.stop)
    root = factors.spectrum[kept.start : kept.stop].sqrt().to(U.device)[:, None]
    return (U * root).T.contiguous(), V * root


def _mover(name: str) -> Callable[[Tensor], Mapping[str, Tensor]]:
    return lambda stored: {name: stored}


def factored_bytes(base: Base, plan: FactorPlan, store: FactorStore) -> int:
    """Disk that `write_factored` needs, in bytes."""
    cast = base.cast(plan.factored + plan.dense)
    changes = factored_changes(base, plan, Products(store), cast)
    small = sum(path.stat().st_size for path in base.companions())
    return size_bytes(base.reader.folder, base.reader.files, changes, cast) + small


def write_factored(base: Base, plan: FactorPlan, store: FactorStore, out: Path) -> Rewritten:
    """Write the factored model to the empty folder `out`, file by file."""
    cast = base.cast(plan.factored + plan.dense)
    changes = factored_changes(base, plan, Products(store, base.source.path, 0), cast)
    done = rewrite(base.reader.folder, base.reader.files, out, changes, cast)
    base.copy_companions(out, cast)
    mark(out, plan.ranks)
    return done


def mark(folder: Path, ranks: Mapping[str, int]) -> None:
    """Note the replaced layers in the configuration."""
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | {KEY: dict(ranks)})


class Factored(Format):
    """The edited matrices as two thin layers each: smaller and faster."""

    name = "factored"
    about = "the edited matrices as two thin layers each: smaller and faster"
    own_model = True
    times = True
    usage = (
        "from search.export.factored import load_factored\n"
        'model = load_factored("OUT")  # with laser-search installed'
    )

    def size(self, work: Work) -> int:
        """See `Format.size`."""
        return factored_bytes(work.base, _plan(work), work.store)

    def write(self, work: Work, out: Path) -> Written:
        """See `Format.write`."""
        plan = _plan(work)
        done = write_factored(work.base, plan, work.store, out)
        inside = plan.thin_parameters
        rows = {
            str(one.matrix.ref): f"two layers of rank {plan.ranks[one.matrix.module]}"
            for one in plan.factored
        }
        rows |= {name: f"dense: {reason}" for name, reason in plan.reasons.items()}
        notes = [
            "The two layers multiply in another order than one matrix, so answers agree with the "
            "dense model up to rounding.",
            "Plain from_pretrained refuses this folder, because the factors have other shapes; "
            "load_factored runs no code from it.",
            f"Its thin layers hold {inside:,} parameters. Some published counts leave them out.",
        ]
        facts = {"ranks": plan.ranks, "kept_dense": plan.reasons, "thin_parameters": inside}
        return Written(rows, notes, {"base tensors": base_digest(done)}, facts)

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """By `load_factored`."""
        model = load_factored(folder, dtype=base.torch_dtype)
        return model.to(device).requires_grad_(False)


def _plan(work: Work) -> FactorPlan:
    return plan_factored(work.base, work.placed, Products(work.store, memory_bytes=0))
