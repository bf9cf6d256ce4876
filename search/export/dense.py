"""The edited model as a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.cuts.composition import Composition
from search.export.base import Base, Placed
from search.export.format import Format, Work, Written, source_of
from search.export.stream import (
    Rewritten,
    WeightChange,
    combined,
    read_header,
    rewrite,
    size_bytes,
    tensor_digests,
)
from search.model import ModelSource, own_device
from search.weights.checkpoint import CheckpointReader
from search.weights.edit import Editor
from search.weights.memory import FactorStore
from search.weights.products import Products


def dense_bytes(base: Base, placed: list[Placed]) -> int:
    """Disk that `write_dense` needs, in bytes."""
    folder, files = base.reader.folder, base.reader.files
    small = sum(path.stat().st_size for path in base.companions())
    return size_bytes(folder, files, {}, base.cast(placed)) + small


def write_dense(base: Base, placed: list[Placed], store: FactorStore, out: Path) -> Rewritten:
    """Write weights, configuration and tokenizer to the empty folder `out`.

    The checkpoint's files are rewritten one after the other, with the trial's own bytes in place of
    the edited matrices and all others copied; the model is not built. Only matrices that the files
    hold in another form than the model need it loaded, once. Files, names and dtype stay as they
    are. The products are computed on this process's device, as the trials' were.
    """
    if not all(one.tensor for one in placed):
        return _write_loaded(base, placed, store, out)
    cast = base.cast(placed)
    changes = dense_changes(base, placed, Products(store, base.source.path, 0), cast)
    done = rewrite(base.reader.folder, base.reader.files, out, changes, cast)
    base.copy_companions(out, cast)
    return done


def dense_changes(
    base: Base, placed: list[Placed], products: Products, cast: torch.dtype | None
) -> dict[str, WeightChange]:
    """What becomes of the stored tensors that hold the matrices of `placed`."""
    by_tensor: dict[str, list[Placed]] = {}
    for one in placed:
        by_tensor.setdefault(one.tensor, []).append(one)
    shapes = _shapes(base, set(by_tensor))
    return {
        name: WeightChange({name: shapes[name]}, _maker(name, edits, products, cast))
        for name, edits in by_tensor.items()
    }


def _shapes(base: Base, names: set[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for shard in {base.reader.files[name] for name in names}:
        for tensor in read_header(base.reader.folder / shard)[1]:
            if tensor.name in names:
                found[tensor.name] = tensor.shape
    return found


def _maker(
    name: str, edits: list[Placed], products: Products, cast: torch.dtype | None
) -> Callable[[Tensor], Mapping[str, Tensor]]:
    def make(stored: Tensor) -> Mapping[str, Tensor]:
        target = stored if cast is None else stored.to(cast)
        for one in edits:
            original = original_of(one, stored)
            value = products.value(one.intervention, original).to(original.dtype)
            part = one.view.of(target)
            part.copy_(value.reshape(part.shape))
        return {name: target}

    return make


def original_of(one: Placed, stored: Tensor) -> Tensor:
    """The untouched matrix [out, in] in a stored tensor, as the trials' model held it."""
    view = one.view.of(stored).clone(memory_format=torch.contiguous_format)
    return view.view(one.matrix.shape).to(one.matrix.dtype).to(own_device())


def _write_loaded(base: Base, placed: list[Placed], store: FactorStore, out: Path) -> Rewritten:
    """The same by way of the loaded model, whose weights transformers writes in its own order."""
    before = tensor_digests(base.reader.folder, base.reader.files)
    model: Any = base.source.load(own_device())
    editor = Editor(model, base.matrices.values(), store, memory_bytes=0)
    editor.apply(Composition(tuple(one.intervention for one in placed)))
    del editor
    base.copy_companions(out)
    model.to("cpu").save_pretrained(out, max_shard_size=base.largest_shard_bytes())
    after = tensor_digests(out, CheckpointReader(out).files)
    changed = {name: digest for name, digest in after.items() if before.get(name) != digest}
    return Rewritten(before, changed)


def base_digest(done: Rewritten) -> str:
    """The base's digest (see Base.digest), from what was read while rewriting it."""
    return combined(done.base)


class Dense(Format):
    """A model that plain transformers loads."""

    name = "dense"
    about = "a model that plain transformers loads"
    same_bytes = True
    own_model = True
    usage = (
        "from transformers import CLASS, AutoTokenizer\n"
        'model = CLASS.from_pretrained("OUT")\n'
        'tokenizer = AutoTokenizer.from_pretrained("OUT")'
    )

    def size(self, work: Work) -> int:
        """See `Format.size`."""
        return dense_bytes(work.base, work.placed)

    def write(self, work: Work, out: Path) -> Written:
        """See `Format.write`."""
        done = write_dense(work.base, work.placed, work.store, out)
        facts = {
            "edited_tensors": {
                name: {"before": done.base.get(name), "after": digest}
                for name, digest in done.changed.items()
            }
        }
        rows = {str(i.matrix): "dense" for i in work.composition.interventions}
        return Written(rows, [], {"base tensors": base_digest(done), **done.changed}, facts)

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """By plain transformers."""
        return source_of(folder, base).load(device)
