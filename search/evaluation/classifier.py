"""Answers of a sequence-classification head."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search.evaluation.encoding import max_tokens
from search.evaluation.token_scorer import NonFiniteLogits, is_close
from search.reuse.batching import (
    Batch,
    Budget,
    Scored,
    TokenRow,
    by_slot,
    collate,
    merge_equal,
    pack,
)
from search.reuse.forward import ForwardPasses
from tasks.base import Classified, Classify, Head, Reply, Request
from tasks.errors import InputError

log = logging.getLogger(__name__)


MIN_LENGTH = 4
"""Tokens that a text needs to show which of its positions the head reads."""


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """Texts as batches. `truncated`: texts cut on the right to the model's length.

    `pad_id`: the token that fills up rows; ends no text where the model's configuration has none
    of its own, because a causal backbone classifies at the last token that is not padding.
    """

    batches: tuple[Batch, ...]
    count: int
    truncated: int
    pad_id: int


class ClassifierPredictor:
    """A sequence-classification model. Equal texts run once."""

    head: Head = "classifier"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens_per_batch: int = 8192,
        passes: ForwardPasses | None = None,
    ) -> None:
        labels = model.config.id2label
        if len(labels) < 2 or model.config.problem_type in (
            "regression",
            "multi_label_classification",
        ):
            kind = model.config.problem_type or "one label"
            raise InputError(f"the classification head has {kind}; it needs two or more classes")
        self.model = model.eval()
        self.passes = passes or ForwardPasses()
        self.ends_early: bool | None = None
        self.tokenizer = tokenizer
        self.labels = tuple(labels[index] for index in sorted(labels))
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch
        parameters = inspect.signature(model.forward).parameters
        self._typed = "token_type_ids" in parameters
        self._options = {"use_cache": False} if "use_cache" in parameters else {}

    def prepare(self, requests: Sequence[Request]) -> PreparedTexts:
        """Tokenise `requests` (Classify) into batches. Raises InputError for others."""
        texts: list[Classify] = []
        for request in requests:
            if not isinstance(request, Classify):
                raise InputError(
                    f"a classifier head cannot answer {type(request).__name__}; "
                    "use a model with a causal or masked head"
                )
            texts.append(request)
        rows: list[TokenRow] = []
        truncated = 0
        for paired in (False, True):
            slots = [
                slot for slot, text in enumerate(texts) if (text.text_pair is not None) == paired
            ]
            found, cut = self._rows(texts, slots, paired)
            rows += found
            truncated += cut
        if truncated:
            log.warning(
                "%d of %d texts were truncated to the model's length", truncated, len(texts)
            )
        merged = merge_equal(rows)
        pad_id = self._pad_id(merged)
        budget = Budget.of(self.tokens_per_batch, len(texts), self.device)
        merged = self._placed(merged, pad_id)
        batches = [collate(group, pad_id, self.device) for group in pack(merged, budget)]
        return PreparedTexts(tuple(batches), len(texts), truncated, pad_id)

    def record(self, prepared: PreparedTexts) -> None:
        """Keep what later passes can begin from; the model is unedited."""
        with self._padding(prepared.pad_id):
            self.passes.record(prepared.batches, self.run)

    def log_probabilities(self, prepared: PreparedTexts, batch: Batch) -> Tensor:
        """Of the labels of a batch's texts, [scored, labels] float32, for a gradient."""
        with self._padding(prepared.pad_id):
            return self._run(batch).float().log_softmax(-1)[batch.rows]

    def answer(self, prepared: PreparedTexts) -> list[Reply]:
        """Run the model; replies in the order of the requests. Raises NonFiniteLogits."""
        with torch.inference_mode(), self._padding(prepared.pad_id):
            found = [self.passes.run(batch, self._values) for batch in prepared.batches]
            results = by_slot(prepared.batches, found, (prepared.count, len(self.labels)))
        if not bool(torch.isfinite(results).all()):
            bad = int((~torch.isfinite(results)).any(-1).sum())
            raise NonFiniteLogits(f"{bad} of {prepared.count} texts have no finite log-probability")
        return [Classified(tuple(values), self.labels) for values in results.tolist()]

    def run(self, batch: Batch) -> Tensor:
        """One forward pass: logits [rows, labels]."""
        if self.ends_early and self.passes.last is not None:
            with self.passes.last.only(batch):
                return self._run(batch)
        return self._run(batch)

    def _values(self, batch: Batch) -> Tensor:
        return self.run(batch).float().log_softmax(-1)[batch.rows]

    def _placed(self, rows: list[TokenRow], pad_id: int) -> list[TokenRow]:
        """`rows` with the position that the head reads, first or last, if it reads but one.

        Tried once, on the longest texts: what the last block computes is then that position alone.
        """
        longest = sorted(rows, key=lambda row: len(row.ids))[-2:]
        if self.passes.last is None or not rows or len(longest[0].ids) < MIN_LENGTH:
            return rows
        if self.ends_early is None:
            self.ends_early = False
            with torch.inference_mode(), self._padding(pad_id):
                whole = self._run(collate(longest, pad_id, self.device))
                for at_end in (False, True):
                    batch = collate([_at(row, at_end) for row in longest], pad_id, self.device)
                    with self.passes.last.only(batch):
                        self.ends_early = is_close(self._run(batch), whole)
                    self._reads_end = at_end
                    if self.ends_early:
                        break
        return [_at(row, self._reads_end) for row in rows] if self.ends_early else rows

    def _run(self, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        logits: Tensor = self.model(**inputs, **self._options).logits
        return logits

    def _rows(
        self, texts: Sequence[Classify], slots: Sequence[int], paired: bool
    ) -> tuple[list[TokenRow], int]:
        if not slots:
            return [], 0
        first = [texts[slot].text for slot in slots]
        second = [texts[slot].text_pair for slot in slots] if paired else None
        encoded = self.tokenizer(first, second, verbose=False)
        if self.limit_tokens is None:
            cut = 0
        else:
            cut = sum(len(ids) > self.limit_tokens for ids in encoded["input_ids"])
        if cut:
            encoded = self.tokenizer(first, second, truncation=True, max_length=self.limit_tokens)
        types = encoded.get("token_type_ids") if self._typed else None
        rows = [
            TokenRow(tuple(ids), (Scored(0, 0, slot),), tuple(types[index]) if types else ())
            for index, (slot, ids) in enumerate(zip(slots, encoded["input_ids"], strict=True))
        ]
        empty = next((row.scored[0].slot for row in rows if not row.ids), None)
        if empty is not None:
            raise InputError(f"text {texts[empty].text!r} has no tokens in the model's vocabulary")
        return rows, cut

    def _pad_id(self, rows: Sequence[TokenRow]) -> int:
        config = self.model.config.get_text_config()
        if config.pad_token_id is not None:
            return int(config.pad_token_id)
        ends = {row.ids[-1] for row in rows}
        own = self.tokenizer.pad_token_id
        candidates = [own] if own is not None else []
        for token in (*candidates, *range(int(config.vocab_size))):
            if token not in ends:
                return int(token)
        raise InputError(
            "every token occurs at the end of a text; set pad_token_id in the model's config.json"
        )

    @contextmanager
    def _padding(self, pad_id: int) -> Iterator[None]:
        """Tell the model its padding token for the while; its configuration is put back."""
        config = self.model.config.get_text_config()
        before = config.pad_token_id
        config.pad_token_id = pad_id
        try:
            yield
        finally:
            config.pad_token_id = before


def _at(row: TokenRow, end: bool) -> TokenRow:
    position = len(row.ids) - 1 if end else 0
    scored = tuple(replace(item, position=position) for item in row.scored)
    return TokenRow(row.ids, scored, row.types)
