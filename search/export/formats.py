"""The forms of export: what each needs, writes and says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from search.cuts.composition import Composition
from search.export.base import Base, Placed
from search.export.dense import base_digest, dense_bytes, write_dense
from search.export.factored import (
    Plan,
    factored_bytes,
    plan_factored,
    write_factored,
)
from search.export.lora import check_lora, write_lora
from search.export.patch import write_patch, write_recipe
from search.weights.memory import FactorStore
from search.weights.products import Products
from tasks.errors import InputError, nearest

_CLASSES = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Work:
    """One export: the base, what is done to it, and where factors are read."""

    base: Base
    composition: Composition
    store: FactorStore

    @cached_property
    def placed(self) -> list[Placed]:
        """The interventions on their matrices."""
        return self.base.place(self.composition)

    @cached_property
    def plan(self) -> Plan:
        """Which matrices are factored."""
        return plan_factored(self.base, self.placed, Products(self.store, memory_bytes=0))


@dataclass(frozen=True)
class Written:
    """What a writer says: `rows` of the card by matrix, `notes`, `digests`, further `facts`."""

    rows: dict[str, str]
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One form of export. `size` gives the bytes it needs, and refuses what it cannot write.

    `load` is the Python that loads it, with OUT, BASE and CLASS to be filled in.
    """

    size: Callable[[Work], int]
    write: Callable[[Work, Path], Written]
    load: str


def get_format(name: str) -> Format:
    """The format called `name`. Raises InputError."""
    if name not in FORMATS:
        raise InputError(
            f"format {name!r} does not exist; expected one of {', '.join(FORMATS)}"
            + nearest(name, FORMATS)
        )
    return FORMATS[name]


def load_lines(kind: str, out: str, base: str, head: str) -> str:
    """Python that loads an export."""
    text = FORMATS[kind].load.replace("CLASS", _CLASSES[head])
    return text.replace("OUT", out).replace("BASE", base)


def parameters(folder: Path) -> int:
    """Numbers in the safetensors files of an export."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118  # no mapping
                size = 1
                for length in stream.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def _write_dense(work: Work, out: Path) -> Written:
    done = write_dense(work.base, work.placed, work.store, out)
    facts = {
        "edited_tensors": {
            name: {"before": done.base.get(name), "after": digest}
            for name, digest in done.changed.items()
        }
    }
    rows = {str(i.matrix): "dense" for i in work.composition.interventions}
    return Written(rows, [], {"base tensors": base_digest(done), **done.changed}, facts)


def _write_factored(work: Work, out: Path) -> Written:
    done = write_factored(work.base, work.plan, work.store, out)
    rows = {
        str(one.matrix.ref): f"two layers of rank {work.plan.ranks[one.matrix.module]}"
        for one in work.plan.factored
    }
    rows |= {name: f"dense: {reason}" for name, reason in work.plan.reasons.items()}
    notes = [
        "The two layers multiply in another order than one matrix, so answers agree with the dense "
        "model up to rounding.",
        "Plain from_pretrained refuses this folder, because the factors have other shapes; "
        "load_factored runs no code from it.",
    ]
    facts = {"ranks": work.plan.ranks, "kept_dense": work.plan.reasons}
    return Written(rows, notes, {"base tensors": base_digest(done)}, facts)


def _write_patch(work: Work, out: Path) -> Written:
    origin = write_patch(work.base, work.placed, work.store, out)
    rows = {str(i.matrix): "kept factors" for i in work.composition.interventions}
    notes = ["Needs the base model, byte for byte; another one is refused by its digest."]
    return Written(rows, notes, {"base tensors": origin.base, **origin.tensors})


def _write_recipe(work: Work, out: Path) -> Written:
    origin = write_recipe(work.base, work.placed, work.store, out)
    rows = {str(i.matrix): "to be computed" for i in work.composition.interventions}
    notes = [
        "Needs the base model, byte for byte; another one is refused by its digest.",
        "The SVDs are computed anew. Another machine may round them otherwise: products agree "
        "within 1e-6 of a matrix's norm in float32, before they are cast to the model's dtype.",
    ]
    return Written(rows, notes, {"base tensors": origin.base})


def _write_lora(work: Work, out: Path) -> Written:
    done = write_lora(work.base, work.placed, work.store, out)
    rows = {
        str(one.matrix.ref): f"adapter of rank {done.ranks[one.matrix.module]}, "
        f"error {done.errors[str(one.matrix.ref)]:.1e} of the matrix's norm"
        for one in work.placed
    }
    notes = [
        "The adapter adds what the edit took away, with the sign turned; merged or not, the sum is "
        "the edited matrix up to the error above.",
    ]
    return Written(rows, notes, {"base tensors": work.base.digest}, {"errors": done.errors})


FORMATS: dict[str, Format] = {
    "dense": Format(
        lambda work: dense_bytes(work.base, work.placed),
        _write_dense,
        "from transformers import CLASS, AutoTokenizer\n"
        'model = CLASS.from_pretrained("OUT")\n'
        'tokenizer = AutoTokenizer.from_pretrained("OUT")',
    ),
    "factored": Format(
        lambda work: factored_bytes(work.base, work.plan, work.store),
        _write_factored,
        "from search.export.factored import load_factored\n"
        'model = load_factored("OUT")  # with laser-search installed',
    ),
    "patch": Format(
        lambda work: sum(4 * sum(p.matrix.shape) * p.matrix.max_rank for p in work.placed),
        _write_patch,
        "# laser-search apply OUT --model BASE --out DENSE\n"
        'from transformers import CLASS\nmodel = CLASS.from_pretrained("DENSE")',
    ),
    "recipe": Format(
        lambda work: 4096,
        _write_recipe,
        "# laser-search apply OUT --model BASE --out DENSE\n"
        'from transformers import CLASS\nmodel = CLASS.from_pretrained("DENSE")',
    ),
    "lora": Format(
        lambda work: check_lora(work.base, work.placed, work.store),
        _write_lora,
        "from peft import PeftModel\nfrom transformers import CLASS\n"
        'model = PeftModel.from_pretrained(CLASS.from_pretrained("BASE"), "OUT")',
    ),
}
