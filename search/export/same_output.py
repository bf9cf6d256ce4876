"""A written model against the model edited in memory: the same output on a few texts.

A cut that no study found has no trial to be compared with. What can be checked without questions is
that the files, loaded in a fresh process, give the output that the edit gave before they were
written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.cuts.composition import Composition
from search.durable import write_json
from search.export.afresh import run_afresh
from search.export.folder import VERDICT
from search.export.format import source_of
from search.export.verify import TOLERANCE, compare_speed, form_of
from search.model import ModelSource, own_device
from search.weights.edit import Editor
from search.weights.matrices import all_matrices
from search.weights.memory import FactorStore
from tasks.errors import InputError

TEXTS = (
    "The capital of France is",
    "Alice wrote a letter to her sister because",
    "2, 4, 6, 8,",
    "def add(a, b):",
)
TOKENS = 16
"""Of each text at most, and of a row of drawn token ids, which reaches all of the vocabulary."""


@dataclass(frozen=True)
class SameOutput:
    """What became of the `texts`. `different`: those of which some log-probability is off.

    `exact`: those whose log-probabilities are the same to the last bit. `worst`: the largest
    difference, in nats. `tolerance`: what may differ, in nats per nat above 1. `speed`: forward
    passes, for a factored model.
    """

    format: str
    texts: int
    different: int
    exact: int
    worst: float
    tolerance: float
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every text came out as from the model in memory."""
        return self.different == 0

    def sentence(self) -> str:
        """The verdict in words."""
        same = self.texts - self.different
        head = "verified" if self.agrees else "verification FAILED"
        return (
            f"{head}: loaded afresh, it gives {same} of {self.texts} texts the output of the model "
            f"edited in memory (largest difference of a log-probability {self.worst:.1e} nats, "
            f"allowed {self.tolerance:.0e})"
        )


def probe_rows(source: ModelSource) -> list[list[int]]:
    """Token ids to ask a model: `TEXTS` by its tokenizer, where it has one, and a drawn row."""
    config = source.config.get_text_config()
    limit = min(TOKENS, (getattr(config, "max_position_embeddings", None) or 2 * TOKENS) // 2)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(int(config.vocab_size), (1, limit), generator=generator).tolist()
    try:
        tokenizer = source.tokenizer()
    except InputError:  # a model can be cut and saved without one
        return list(rows)
    texts = [tokenizer(text)["input_ids"][:limit] for text in TEXTS]
    return [*(row for row in texts if row), *rows]


@torch.inference_mode()
def outputs(model: Any, rows: list[list[int]]) -> list[Tensor]:
    """Log-probabilities [tokens or 1, vocabulary or labels] of each row, float32, on the CPU."""
    found = []
    for row in rows:
        ids = torch.tensor([row], device=next(model.parameters()).device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(model.config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = ids
        logits = model(**inputs).logits[0].float()
        found.append(logits.reshape(-1, logits.shape[-1]).log_softmax(-1).cpu())
    return found


def edited_outputs(
    source: ModelSource, composition: Composition, store: FactorStore, rows: list[list[int]]
) -> list[Tensor]:
    """What the model says with `composition` applied in memory."""
    model = source.load(own_device())
    Editor(model, all_matrices(model), store).apply(composition)
    return outputs(model, rows)


def verify_output(
    folder: Path, kind: str, source: ModelSource, composition: Composition, store: FactorStore
) -> SameOutput:
    """Compare `folder` in a new process with the edit in memory; stored as verification.json.

    Raises InputError if the process fails.
    """
    rows = probe_rows(source)
    expected = edited_outputs(source, composition, store, rows)
    with tempfile.TemporaryDirectory() as name:
        facts = {
            "kind": kind,
            "path": str(source.folder),
            "head": source.head,
            "dtype": str(source.torch_dtype).removeprefix("torch."),
            "rows": rows,
        }
        write_json(Path(name) / "asked.json", facts)
        save_file({str(n): one for n, one in enumerate(expected)}, Path(name) / "expected")
        run_afresh("search.export.same_output", folder.absolute(), name)
    return SameOutput(**json.loads((folder / VERDICT).read_text(encoding="utf-8")))


def compare_folder(folder: Path, asked: Path) -> SameOutput:
    """Load `folder` and compare its outputs with those in the folder `asked`."""
    facts = json.loads((asked / "asked.json").read_text(encoding="utf-8"))
    expected = load_file(asked / "expected")
    form = form_of(facts["kind"])
    base = ModelSource(facts["path"], None, facts["head"], facts["dtype"])
    rows = facts["rows"]
    if form.own_model and probe_rows(source_of(folder, base)) != rows:
        raise InputError("its tokenizer splits the texts differently from the base model's")
    with tempfile.TemporaryDirectory() as scratch:
        model = form.load(folder, base, own_device(), Path(scratch))
        found = outputs(model, rows)
    tolerance = TOLERANCE.get(base.torch_dtype, 1e-4) * (1 if form.same_bytes else 10)
    different = exact = 0
    worst = 0.0
    for number, one in enumerate(found):
        gap, fits = _gap(expected[str(number)], one, tolerance)
        different += not fits
        exact += gap == 0
        worst = max(worst, gap)
    speed = compare_speed(model, base.load(own_device())) if form.times else {}
    return SameOutput(facts["kind"], len(rows), different, exact, worst, tolerance, speed)


def _gap(expected: Tensor, found: Tensor, tolerance: float) -> tuple[float, bool]:
    """The largest difference, and whether all are allowed; what is no number never is."""
    if expected.shape != found.shape or not torch.isfinite(expected).any():
        return float("inf"), False
    gap = torch.where(expected == found, 0.0, (expected - found).abs())
    fits = gap <= tolerance * expected.abs().clamp(min=1.0)
    return float(gap.nan_to_num(nan=float("inf")).max()), bool(fits.all())


def main() -> None:
    """Compare and store the verdict: FOLDER ASKED."""
    folder, asked = map(Path, sys.argv[1:])
    try:
        found = compare_folder(folder, asked)
    except InputError as error:
        sys.exit(f"laser-search: {error}")
    write_json(folder / VERDICT, asdict(found))


if __name__ == "__main__":
    main()
