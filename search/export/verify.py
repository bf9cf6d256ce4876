"""An export loaded again in a fresh process and asked the trial's own questions."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from search.export.afresh import run_afresh
from search.export.folder import VERDICT
from search.export.format import Form, source_of
from search.export.formats import get_format
from search.export.lora import adapted
from search.export.scoring import Scorer
from search.model import ModelSource, own_device
from search.phases import SILENT, Phases, in_batches, relay
from search.study.jobs import trial_name
from search.study.outcomes import parse_outcomes, read_outcomes
from search.study.study_record import StudyRecord
from tasks.base import Outcome
from tasks.errors import InputError

CUT, ADAPTER = "model", "adapter"
"""Folders of a healed model whose adapter is kept apart."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of a log-probability, in nats per nat above 1, between two runs of the same
bytes: batches and threads may round otherwise. Other formats get ten times as much."""

ROUNDINGS = 8
"""Where more differs than that: so many times what batches alone make of it is allowed."""


@dataclass(frozen=True)
class Verification:
    """What became of the trial's questions. `reference`: whose answers were expected.

    `different`: examples whose score or prediction is another, or whose log-probability is off by
    more than `tolerance`. `worst`: the largest difference of a log-probability, in nats.
    `exact`: examples whose every figure is the same to the last bit. `score` is that of the export,
    `expected` the reference's. `speed`: forward passes, for a factored model.
    """

    format: str
    reference: str
    examples: int
    different: int
    exact: int
    worst: float
    tolerance: float
    score: float
    expected: float
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every example came out as in the trial."""
        return self.different == 0

    def sentence(self) -> str:
        """The verdict in words."""
        same = self.examples - self.different
        head = "verified" if self.agrees else "verification FAILED"
        return (
            f"{head}: loaded afresh, {same} of {self.examples} validation examples answer as in "
            f"{self.reference} (largest difference of a log-probability {self.worst:.1e} nats, "
            f"allowed {self.tolerance:.0e}; score {self.score:.4f}, there {self.expected:.4f})"
        )


def verify_afresh(
    folder: Path,
    study: Path,
    trial: int,
    kind: str,
    outcomes: Path | None = None,
    phases: Phases = SILENT,
) -> Verification:
    """Run `verify` in a new process; the verdict is stored as verification.json in `folder`.

    Raises InputError if the process fails.
    """
    phases.enter("checking what was written")
    words = [str(study), str(trial), kind, *([] if outcomes is None else [str(outcomes)])]
    run_afresh("search.export.verify", folder, *words, phases=phases)
    return Verification(**json.loads((folder / VERDICT).read_text(encoding="utf-8")))


def verify(
    folder: Path,
    study: Path,
    trial: int,
    kind: str,
    outcomes: Path | None = None,
    phases: Phases = SILENT,
) -> Verification:
    """Load the export in `folder` and compare its answers with the stored ones of `trial`.

    `outcomes` is a file of other outcomes to compare with: those of a trained model. Raises
    InputError if there are none.
    """
    form = form_of(kind)
    record = StudyRecord.read(study)
    study_id, effect = record.identity.study_id, record.trials[trial].effect
    if outcomes is None:
        stored = read_outcomes(study, trial_name(trial), study_id, effect)
    else:
        stored = parse_outcomes(outcomes.read_bytes(), study_id, effect)
    if stored is None:
        raise InputError(f"trial {trial} has no stored outcomes to compare with; use --no-verify")
    phases.enter("check: reading the checkpoint")
    scorer = Scorer(record, effect)
    source = scorer.plan.source
    with tempfile.TemporaryDirectory() as scratch:
        phases.enter("check: loading what was written")
        model = form.load(folder, source, own_device(), Path(scratch))
        tokenizer = source_of(folder, source).tokenizer() if form.own_model else None
        heard = in_batches(phases, "check: asking it")
        found = scorer.score(model, tokenizer=tokenizer, heard=heard)
        tolerance = TOLERANCE.get(source.torch_dtype, 1e-4) * (1 if form.same_bytes else 10)
        different, exact, worst = compare_outcomes(stored.outcomes, found.outcomes, tolerance)
        if different:  # this model may amplify rounding, and this processor round otherwise
            heard = in_batches(phases, "check: asking it one by one")
            alone = scorer.score(model, tokenizer=tokenizer, tokens_per_batch=1, heard=heard)
            tolerance = measured_tolerance(found.outcomes, alone.outcomes, tolerance)
            different = min(
                compare_outcomes(stored.outcomes, one.outcomes, tolerance)[0]
                for one in (found, alone)
            )
    speed = compare_speed(model, source.load(own_device())) if form.times else {}
    return Verification(
        kind,
        f"trial {trial}" if outcomes is None else "the process that trained it",
        len(stored.outcomes),
        different,
        exact,
        worst,
        tolerance,
        found.score,
        stored.score,
        speed,
    )


class HealedLora(Form):
    """A cut model with an adapter kept apart: what `heal --apart` writes."""

    name = "healed-lora"

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """The cut model by transformers, with its adapter by peft."""
        return adapted(source_of(folder / CUT, base).load(device), folder / ADAPTER)


def form_of(name: str) -> Form:
    """The form of folder called `name`: a format, or what `heal` writes. Raises InputError."""
    return HealedLora() if name == HealedLora.name else get_format(name)


def compare_outcomes(
    expected: Sequence[Outcome], found: Sequence[Outcome], tolerance: float
) -> tuple[int, int, float]:
    """(examples that differ, examples equal to the last bit, largest log-probability difference).

    Matched by id. A missing example differs.
    """
    by_id = {outcome.example_id: outcome for outcome in found}
    different = exact = 0
    worst = 0.0
    for old in expected:
        new = by_id.get(old.example_id)
        if new is None:
            different += 1
            continue
        gap = abs(old.log_probability - new.log_probability)
        worst = max(worst, gap)
        exact += old == new
        allowed = tolerance * max(1.0, abs(old.log_probability))
        same = gap <= allowed and abs(old.score - new.score) <= (
            0 if float(old.score).is_integer() else tolerance * max(1.0, abs(old.score))
        )
        different += not (same and old.prediction == new.prediction)
    return different, exact, worst


def measured_tolerance(
    found: Sequence[Outcome], alone: Sequence[Outcome], tolerance: float
) -> float:
    """What the log-probabilities of a model may be off, in nats per nat above 1.

    `found` and `alone` are answers of the same model in batches and one by one: what differs
    between them is rounding and nothing else. At least `tolerance`.
    """
    by_id = {outcome.example_id: outcome.log_probability for outcome in alone}
    gaps = [
        abs(one.log_probability - by_id[one.example_id]) / max(1.0, abs(one.log_probability))
        for one in found
    ]
    return max(tolerance, ROUNDINGS * max(gaps, default=0.0))


def compare_speed(model: Any, dense: Any) -> dict[str, float]:
    """Median seconds of a forward pass over 4 rows of 64 tokens, factored and dense, in turns."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 64
    ids = torch.arange(4 * min(64, limit // 2)).reshape(4, -1) % vocabulary
    ids = ids.to(next(model.parameters()).device)
    inputs = {"input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    seconds: dict[str, list[float]] = {"factored": [], "dense": []}
    with torch.inference_mode():
        for _ in range(6):
            for name, one in (("factored", model), ("dense", dense)):
                started = time.perf_counter()
                one(**inputs)
                if ids.is_cuda:
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - started)
    middle = {name: sorted(found[1:])[2] for name, found in seconds.items()}
    return {f"{name}_s": round(value, 6) for name, value in middle.items()}


def main() -> None:
    """Verify and store the verdict: FOLDER STUDY TRIAL FORMAT."""
    from search.durable import write_json

    folder, study, trial, kind, *outcomes = sys.argv[1:]
    try:
        others = Path(outcomes[0]) if outcomes else None
        phases = relay(sys.stdout)
        found = verify(Path(folder), Path(study), int(trial), kind, others, phases)
    except InputError as error:
        sys.exit(f"laser-search: {error}")
    write_json(Path(folder) / VERDICT, asdict(found))


if __name__ == "__main__":
    main()
