"""Texts as rows of tokens, without padding: a padded place would count as an input."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from search.calibration.texts import Passage, Texts
from search.evaluation.chat import ChatTemplate
from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.seq2seq import decoder_start
from search.model import ModelSource
from tasks.base import MASK, Complete
from tasks.errors import InputError

WINDOW_TOKENS = 512
"""The most that is read of one passage."""

BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens `ids` as the model reads them, their `types`, and what a decoder reads: `target`."""

    ids: Ids
    types: Ids = ()
    target: Ids = ()

    @property
    def tokens(self) -> int:
        """In all."""
        return len(self.ids) + len(self.target)


class RowMaker:
    """Turns passages into rows for `model`, which is of `source`."""

    def __init__(self, model: Any, source: ModelSource) -> None:
        """Raises InputError if the tokenizer lacks what the head needs."""
        self._tokenizer = source.tokenizer()
        self._encoder = Encoder(self._tokenizer)
        self._head = source.head
        self._limit = min(max_tokens(model, self._tokenizer) or WINDOW_TOKENS, WINDOW_TOKENS)
        self._chat = ChatTemplate(self._tokenizer) if source.chat_template else None
        self._start = decoder_start(model) if self._head == "seq2seq" else 0
        self._typed = "token_type_ids" in inspect.signature(model.forward).parameters

    def rows(self, texts: Texts) -> list[Row]:
        """Passages in their order until there are `texts.tokens` tokens, or all. Sorted by length.

        Raises InputError if there is no token.
        """
        found: list[Row] = []
        left = texts.tokens
        for passage in texts.passages:
            if left <= 0:
                break
            if (row := self._row(passage)).ids:
                found.append(row)
                left -= row.tokens
        if not found:
            raise InputError(f"{texts.said} contain no tokens to calibrate on; give other texts")
        return sorted(found, key=_shape)

    def _row(self, passage: Passage) -> Row:
        match self._head:
            case "causal":
                return Row(self._read_on(passage))
            case "seq2seq":
                return self._pair(passage)
        return self._whole(passage)

    def _read_on(self, passage: Passage) -> Ids:
        text, answer = passage.text, passage.answer
        if self._chat is not None and passage.message:
            match self._chat.wrap(Complete(text, answer)):
                case Complete(prompt, reply):
                    text, answer = prompt, reply
        ids = self._encoder.open(self._encoder.plain([text + answer])[0])
        # A prompt ends in what is asked, so it is its left end that a model does not see.
        return ids[-self._limit :] if passage.message else ids[: self._limit]

    def _pair(self, passage: Passage) -> Row:
        """The text for the encoder; the answer, or the text again, for the decoder."""
        source, target = self._encoder.plain([passage.text, (passage.answer or passage.text)])
        room = self._limit - len(self._encoder.prefix) - len(self._encoder.suffix)
        ids = self._encoder.open(source[:room]) + self._encoder.suffix
        return Row(ids, (), (self._start, *self._encoder.prefix, *target[:room]))

    def _whole(self, passage: Passage) -> Row:
        text = passage.text
        if MASK in text:
            own = str(self._tokenizer.mask_token)
            count = len(self._encoder.plain([passage.answer])[0]) if passage.answer else 1
            text = text.replace(MASK, own * max(1, count))
        read = self._tokenizer(text, passage.pair, truncation=True, max_length=self._limit)
        types = tuple(read["token_type_ids"]) if self._typed and "token_type_ids" in read else ()
        return Row(tuple(read["input_ids"]), types)


def batches(rows: Sequence[Row], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """What a model is called with: rows of one length together, as far as `BATCH_TOKENS` go."""

    def tensor(lines: Sequence[Ids]) -> Tensor:
        return torch.tensor(lines, dtype=torch.int64, device=device)

    for shape, alike in groupby(rows, key=lambda row: _shape(row)[:3]):
        same = list(alike)
        count = max(1, BATCH_TOKENS // max(1, shape[0] + shape[2]))
        for start in range(0, len(same), count):
            part = same[start : start + count]
            ids = tensor([row.ids for row in part])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if part[0].types:
                inputs["token_type_ids"] = tensor([row.types for row in part])
            if part[0].target:
                inputs["decoder_input_ids"] = tensor([row.target for row in part])
            yield inputs


def _shape(row: Row) -> tuple[int, int, int, Ids, Ids]:
    return (len(row.ids), len(row.types), len(row.target), row.ids, row.target)
