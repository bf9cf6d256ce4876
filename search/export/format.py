"""What every form of export says of itself: how it is written, loaded, compared and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from search.cuts.composition import Composition
from search.export.base import Base, Placed
from search.model import ModelSource
from search.weights.memory import FactorStore

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


@dataclass(frozen=True)
class Written:
    """What a writer says: `rows` of the card by matrix, `notes`, `digests`, further `facts`."""

    rows: dict[str, str]
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Form(ABC):
    """A folder that a model is loaded from. Stateless; `name` is its spelling.

    `same_bytes`: the loaded weights are the trial's own, so that answers differ by the rounding of
    batches alone; of others ten times as much is allowed. `own_model`: the folder is a whole model,
    with its tokenizer and parameters of its own; else it needs the base. `times`: whether its speed
    is measured beside the dense model's.
    """

    name: ClassVar[str]
    same_bytes: ClassVar[bool] = False
    own_model: ClassVar[bool] = False
    times: ClassVar[bool] = False

    @abstractmethod
    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """The model that `folder` amounts to, on `device`, in the dtype of `base`, for inference.

        `scratch` is an empty folder for what need not last.
        """
        ...


class Format(Form):
    """A form that a composition is exported as.

    `about`: one line for lists. `library`: what loads it, as model hubs name it. `usage`: the
    Python that loads it, with OUT, BASE and CLASS to be filled in.
    """

    about: ClassVar[str]
    library: ClassVar[str] = "transformers"
    usage: ClassVar[str]

    @abstractmethod
    def size(self, work: Work) -> int:
        """Bytes of disk that it needs. Raises InputError where it cannot hold the composition."""
        ...

    @abstractmethod
    def write(self, work: Work, out: Path) -> Written:
        """Write the export to the empty folder `out`; the caller adds card and interventions."""
        ...

    def load_lines(self, out: str, base: str, head: str) -> str:
        """`usage` for the folder `out` of a model `base` with this head."""
        text = self.usage.replace("CLASS", _CLASSES[head])
        return text.replace("OUT", out).replace("BASE", base)


def source_of(folder: Path, base: ModelSource) -> ModelSource:
    """A folder as a checkpoint that is loaded as `base` is."""
    name = str(base.torch_dtype).removeprefix("torch.")
    return ModelSource(
        str(folder),
        None,
        base.head,
        name,  # type: ignore[arg-type]
        base.trust_remote_code,
        base.chat_template,
    )
