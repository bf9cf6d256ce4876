"""The difference of edited and untouched matrices as a PEFT adapter (LoRA)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from search.durable import write_file
from search.export.base import Base, Placed
from search.export.format import Format, Work, Written
from search.model import ModelSource
from search.weights.factor_file import multiplied
from search.weights.memory import FactorStore
from search.weights.products import Products
from tasks.errors import InputError

WEIGHTS = "adapter_model.safetensors"
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Largest relative error of an edited matrix, by the model's dtype: a few roundings of it."""


@dataclass(frozen=True)
class Adapter:
    """What was written: rank by module, and ‖W + BA − W'‖ / ‖W'‖ by matrix, W' the trial's."""

    ranks: dict[str, int]
    errors: dict[str, float]


def require_peft() -> Any:
    """The peft package. Raises InputError if it is not installed."""
    try:
        import peft
    except ImportError:
        raise InputError(
            "this needs peft, which is not installed; run: pip install 'laser-search[peft]'"
        ) from None
    return peft


def write_lora(base: Base, placed: list[Placed], store: FactorStore, out: Path) -> Adapter:
    """Write adapter_config.json and adapter_model.safetensors to `out`, in float32.

    B A is minus the sum of the singular triples that the edit takes away, so W + B A is the edited
    matrix up to rounding. Raises InputError where what is taken away is not the smaller part, where
    a matrix is no layer that peft adapts, or where the error is above TOLERANCE.
    """
    peft = require_peft()
    products = Products(store, base.source.path, 0)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    errors: dict[str, float] = {}
    for one in placed:
        _check_module(base, one)
        original = base.origin.read(one.matrix)
        up, down = _removed(products, one, original)
        edited = products.value(one.intervention, original).to(original.dtype).float()
        error = torch.dist(original.float() + up @ down, edited) / edited.norm()
        errors[str(one.matrix.ref)] = float(error)
        if not float(error) <= TOLERANCE[original.dtype]:
            raise InputError(
                f"an adapter of {one.intervention} would be off by {float(error):.1e} of the "
                f"matrix, more than {TOLERANCE[original.dtype]:.0e}; export a patch instead"
            )
        parts.setdefault(one.matrix.module, []).append((_spread(base, one, up), down))
    tensors, ranks = {}, {}
    for module, pairs in parts.items():
        A, B = torch.cat([d for _, d in pairs]), torch.cat([u for u, _ in pairs], 1)
        tensors[f"base_model.model.{module}.lora_A.weight"] = A.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = B.contiguous()
        ranks[module] = len(A)
    _config(peft, base, ranks).save_pretrained(str(out))
    write_file(out / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    return Adapter(ranks, errors)


def check_lora(base: Base, placed: list[Placed], store: FactorStore) -> int:
    """Bytes of the adapter. Raises InputError if a matrix cannot be adapted; see `write_lora`."""
    require_peft()
    products, total = Products(store, base.source.path, 0), 0
    for one in placed:
        _check_module(base, one)
        gone = _gone(products, one, base.origin.read(one.matrix))
        rows = max(base.skeleton.get_submodule(one.matrix.module).weight.shape)  # type: ignore[arg-type]
        total += 4 * len(gone) * (rows + one.matrix.shape[1])
    return total


def _check_module(base: Base, one: Placed) -> None:
    kind = type(base.skeleton.get_submodule(one.matrix.module)).__name__
    if kind not in ("Linear", "Conv1D") or one.matrix.view.expert is not None:
        raise InputError(
            f"{one.matrix.ref} is part of a {kind}, which peft does not adapt; export a patch"
        )


def _gone(products: Products, one: Placed, original: Tensor) -> range:
    """The ranks that the edit takes away. Raises InputError if they are not the smaller part."""
    full = min(original.shape)
    kept = products.kept(one.intervention, original)
    if kept is None:
        raise InputError(
            f"{one.intervention} does not remove singular triples, which is all that an adapter "
            "can do; export a patch"
        )
    gone, smaller = multiplied(kept, full)
    if not smaller:
        raise InputError(
            f"{one.intervention} keeps {len(kept)} of {full} ranks, so its difference has rank "
            f"{full - len(kept)}, the larger part; export it as factored or as a patch"
        )
    return gone


def _removed(products: Products, one: Placed, original: Tensor) -> tuple[Tensor, Tensor]:
    """B [out, m] and A [m, in] with B A = -Σ σᵢ uᵢ vᵢᵀ over the m ranks that go, float32."""
    from search.export.factored import balanced

    gone = _gone(products, one, original)
    if not gone:
        out, into = original.shape
        return torch.zeros(out, 1), torch.zeros(1, into)
    factors = products.factors(one.intervention, original, 0, min(original.shape))
    up, down = balanced(factors, gone)
    return -up, down


def _spread(base: Base, one: Placed, up: Tensor) -> Tensor:
    """`up` [out, m] in the rows of the whole layer: [layer's out, m]; zero in those of others."""
    view = one.matrix.view
    if not view.width:
        return up
    layer: Any = base.skeleton.get_submodule(one.matrix.module)
    rows = layer.weight.shape[1] if view.transposed else layer.weight.shape[0]
    whole = torch.zeros(rows, up.shape[1])
    part = replace(view, transposed=False).of(whole)
    part.copy_(up.reshape(part.shape))
    return whole


def _base_name(path: str) -> str:
    """What peft may load the adapter onto: the id that was searched, else a folder's bare name.

    Not the id that a folder's configuration names: peft would load it unasked, and the folder may
    hold other weights by now.
    """
    local = Path(path).expanduser()
    return local.resolve().name if local.is_dir() else path


def _config(peft: Any, base: Base, ranks: dict[str, int]) -> Any:
    """A LoRA of scaling 1 in every module, whatever its rank."""
    first = next(iter(ranks.values()))
    kinds = {type(base.skeleton.get_submodule(name)).__name__ for name in ranks}
    # Anchored: peft reads the keys as endings of module names.
    patterns = {"^" + re.escape(name) + "$": rank for name, rank in ranks.items()}
    return peft.LoraConfig(
        r=first,
        lora_alpha=first,
        rank_pattern=patterns,
        alpha_pattern=patterns,
        target_modules=sorted(ranks),
        fan_in_fan_out=kinds == {"Conv1D"},
        base_model_name_or_path=_base_name(base.source.path),
        revision=base.source.revision,
        inference_mode=True,
    )


class Lora(Format):
    """A PEFT adapter."""

    name = "lora"
    about = "a PEFT adapter"
    library = "peft"
    usage = (
        "from peft import PeftModel\nfrom transformers import CLASS\n"
        'model = PeftModel.from_pretrained(CLASS.from_pretrained("BASE"), "OUT")'
    )

    def size(self, work: Work) -> int:
        """See `Format.size`."""
        return check_lora(work.base, work.placed, work.store)

    def write(self, work: Work, out: Path) -> Written:
        """See `Format.write`."""
        done = write_lora(work.base, work.placed, work.store, out)
        rows = {
            str(one.matrix.ref): f"adapter of rank {done.ranks[one.matrix.module]}, "
            f"error {done.errors[str(one.matrix.ref)]:.1e} of the matrix's norm"
            for one in work.placed
        }
        notes = [
            "The adapter adds what the edit took away, with the sign turned; merged or not, the "
            "sum is the edited matrix up to the error above.",
        ]
        return Written(rows, notes, {"base tensors": work.base.digest}, {"errors": done.errors})

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """By peft, onto the base."""
        return adapted(base.load(device), folder)


def adapted(model: Any, adapter: Path) -> Any:
    """`model` with an adapter; its own class, with peft's layers in it: what a predictor asks."""
    found = require_peft().PeftModel.from_pretrained(model, str(adapter))
    return found.get_base_model().eval().requires_grad_(False)
