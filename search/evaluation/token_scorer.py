"""How likely a language model finds given tokens: the forward pass and what is read off it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from search.reuse.batching import Batch, by_slot
from search.reuse.forward import ForwardPasses
from search.reuse.shared_prompts import BranchedBatch

CELLS = 2**26
"""Logits turned to float32 at once: 256 MB."""
FIELDS = 6
"""What is read off the logits of a scored place, see TokenScores."""
FLAT = 1 - 2.0**-22
"""Mean of exp(logit - largest) from which on all logits are the same: two steps of float32."""


class NonFiniteLogits(ArithmeticError):  # noqa: N818 - says what was found
    """A model gave NaN or infinity where a log-probability was needed."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Results by slot.

    `log_probabilities` of the targets in nats; `flat`: whether all tokens of the vocabulary are
    equally likely. `ranks` of the targets in the vocabulary, 0 best: how many tokens are likelier.
    `ties`: how many are as likely as the target, with it. `tops`: the likeliest tokens, the lower
    of those that tie; `top_ties`: how many do. The last four are 0 throughout where they were not
    asked for.
    """

    log_probabilities: list[float]
    flat: list[bool]
    ranks: list[int]
    ties: list[int]
    tops: list[int]
    top_ties: list[int]


class TokenScorer:
    """Runs a causal or masked language model on batches and scores tokens.

    Only scored positions reach the output head: a hook picks them out of the hidden states that
    enter it, so whatever the model does to logits afterwards (soft capping, scaling) still
    happens. Whether a model supports that is tried on its own batch, see `calibrate`; if not, all
    logits are computed and picked from. The model is put into evaluation mode, nothing else of it
    is changed.
    """

    def __init__(self, model: Any, passes: ForwardPasses | None = None) -> None:
        self.model = model.eval()
        self.passes = passes or ForwardPasses()
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        pad = getattr(model.config.get_text_config(), "pad_token_id", None)
        # The model's padding token; any other serves as well, since padding is masked.
        self.pad_id = pad if isinstance(pad, int) and 0 <= pad < self.vocabulary else 0
        self.picks_before_head = False
        self.ends_early = False
        self._calibrated = False
        self._branches: bool | None = None
        parameters = inspect.signature(model.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in parameters else {}

    def calibrate(self, batch: Batch) -> None:
        """Try on `batch`, once, which short cuts give the model's own logits.

        They are picking before the head, and computing only what is scored in the last block.
        """
        if self._calibrated:
            return
        self._calibrated = True
        names = ("picks_before_head", "ends_early")
        with torch.inference_mode():
            with self.passes.prefix.repeating(partial(self.run, batch)) as full:
                for name in names:
                    self._try(name, batch, full)
            for name in names:  # where blocks hand on more than their output, in full
                if not getattr(self, name):
                    self._try(name, batch, full)

    def _try(self, name: str, batch: Batch, full: Tensor) -> None:
        """Take the short cut `name` if it gives `full` on `batch`."""
        setattr(self, name, True)
        try:
            same = is_close(self.run(batch), full)
        except (RuntimeError, IndexError, ValueError):
            same = False
        setattr(self, name, same)

    def supports_branches(self, shared: BranchedBatch, separate: Batch) -> bool:
        """Whether rows that share their prompt get the logits of `separate` ones; tried once.

        Not where a model has no use for positions or a mask of our own: a recurrent one, say, or
        one whose layers see a window that is shorter than the text.
        """
        if self._branches is None:
            try:
                with torch.inference_mode():
                    found = self.run(shared)[shared.slots.argsort()]
                    expected = self.run(separate)[separate.slots.argsort()]
                self._branches = is_close(found, expected)
            except (RuntimeError, IndexError, ValueError, TypeError):
                self._branches = False
        return self._branches

    def run(self, batch: Batch) -> Tensor:
        """One forward pass: logits [scored, vocabulary] at the scored places of `batch`."""
        if self.ends_early and self.passes.last is not None:
            with self.passes.last.only(batch):
                return self._run(batch)
        return self._run(batch)

    def _run(self, batch: Batch) -> Tensor:
        inputs = self.inputs(batch)
        if not self.picks_before_head:
            logits: Tensor = self.model(**inputs, **self._options).logits
            device = logits.device
            return logits[batch.rows.to(device), batch.positions.to(device)]
        with _picking(self.model.get_output_embeddings(), batch):
            logits = self.model(**inputs, **self._options).logits
        return logits.squeeze(0)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the model is called with."""
        if isinstance(batch, BranchedBatch):
            return batch.inputs(self.model.dtype)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        return inputs

    def score(self, batches: Sequence[Batch], slots: int, *, ranked: bool = True) -> TokenScores:
        """Score every batch; `ranked`: with ranks and likeliest tokens. Raises NonFiniteLogits.

        A choice or a loss needs neither, and over a large vocabulary they cost more than the
        probabilities.
        """
        with torch.inference_mode():
            found = [self.passes.run(batch, partial(self._values, ranked)) for batch in batches]
            results = by_slot(batches, found, (slots, FIELDS)).T
        if not bool(torch.isfinite(results[0]).all()):
            bad = int((~torch.isfinite(results[0])).sum())
            raise NonFiniteLogits(f"{bad} of {slots} scored tokens have no finite log-probability")
        flat, *counts = results[1:].long().tolist()
        return TokenScores(results[0].tolist(), list(map(bool, flat)), *counts)

    def log_probabilities(self, batch: Batch) -> Tensor:
        """Of the targets, [scored] float32, in a pass that can be differentiated."""
        logits = self._run(batch)
        targets = batch.targets.to(logits.device)[:, None]
        return logits.float().log_softmax(-1).gather(1, targets)[:, 0]

    def _values(self, ranked: bool, batch: Batch) -> Tensor:
        return _read(self.run(batch), batch.targets, ranked).T


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether logits of one shape, any float dtype, differ by the order of summation at most.

    On any device; compared in float32 within 1e-4, of float64 1e-9, of narrower dtypes 3e-2.
    """
    close = {torch.float32: 1e-4, torch.float64: 1e-9}.get(expected.dtype, 3e-2)
    return found.shape == expected.shape and bool(
        torch.allclose(found.float(), expected.float(), rtol=close, atol=close, equal_nan=True)
    )


@contextmanager
def _picking(head: Any, batch: Batch) -> Iterator[None]:
    """Let only the scored places of `batch` into `head`: hidden [1, scored, width]."""

    def pick(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        rows, positions = batch.rows.to(hidden.device), batch.positions.to(hidden.device)
        return (hidden[rows, positions].unsqueeze(0), *arguments[1:])

    if head is None:
        raise ValueError("the model has no output embeddings")
    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def _read(logits: Tensor, targets: Tensor, ranked: bool = True) -> Tensor:
    """The fields of TokenScores, [6, scored] float64, of `logits` [scored, vocabulary].

    Log-softmax in float32, shifted by the maximum first: GPT-2's logits lie near -100, where a
    plain difference from the log-sum would lose two digits. NaN or +inf anywhere in a row, and
    -inf at the target, make its log-probability non-finite.
    """
    targets = targets.to(logits.device)
    step = max(1, CELLS // logits.shape[-1])
    parts = []
    for start in range(0, len(logits), step):
        target = targets[start : start + step, None]
        values = logits[start : start + step].float()
        values = values - values.amax(-1, keepdim=True)
        own = values.gather(1, target)
        places = [torch.zeros_like(own[:, 0])] * 4
        if ranked:
            top = values == 0
            ties = [(values == own).sum(-1), top.int().argmax(-1), top.sum(-1)]
            places = [(values > own).sum(-1), *ties]
        total = values.exp_().sum(-1)
        flat = total >= FLAT * logits.shape[-1]
        parts.append(torch.stack([p.double() for p in (own[:, 0] - total.log(), flat, *places)]))
    return torch.cat(parts, dim=1)
