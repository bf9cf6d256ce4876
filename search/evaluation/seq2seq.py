"""Answers of a sequence-to-sequence model: a text for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.generation import (
    Continuation,
    GreedyDecoder,
    Prompt,
    PromptBatch,
    PromptPasses,
    cache_name,
    keep_rows,
    pack_prompts,
)
from search.evaluation.requests import (
    SCORED_CELLS,
    PreparedRequests,
    assemble,
    finish,
    flatten,
    is_ranked,
    owners,
)
from search.evaluation.token_scorer import TokenScorer
from search.reuse.batching import (
    Batch,
    Budget,
    Scored,
    TokenRow,
    collate,
    digest_of,
    merge_equal,
    pack,
    widen,
)
from search.reuse.caches import tensors_of
from search.reuse.forward import ForwardPasses
from tasks.base import Choose, Complete, Generate, Head, Reply, Request, Weigh
from tasks.errors import InputError


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """Sources and the targets that follow them; the fields of Batch are those of the targets.

    `source_ids`, `source_mask` [sources, tokens] int64, padded on the right; `source_of` [rows]
    int64, the source of each target.
    """

    source_ids: Tensor
    source_mask: Tensor
    source_of: Tensor

    @property
    def tokens(self) -> int:
        """Tokens of sources and targets, padding included."""
        return self.input_ids.numel() + self.source_ids.numel()

    def key(self) -> str:
        """Digest of what the model reads."""
        return digest_of(
            self.input_ids, self.attention_mask, self.source_ids, self.source_mask, self.source_of
        )

    def _part(self, start: int, stop: int) -> PairBatch:
        of = self.source_of[start:stop]
        first, last = int(of[0]), int(of[-1]) + 1  # ascending: targets stand by their sources
        mask = self.source_mask[first:last]
        width = max(1, int(mask.sum(-1).max()))
        return PairBatch(
            **self._between(start, stop),
            source_ids=self.source_ids[first:last, :width],
            source_mask=mask[:, :width],
            source_of=of - first,
        )


class PairScorer(TokenScorer):
    """Scores targets given their sources; each source is encoded once."""

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The encoder's output, spread over the targets, and what the decoder reads.

        Targets are padded on the right, where causal attention keeps padding from what is scored.
        """
        if not isinstance(batch, PairBatch):
            raise TypeError(f"a pair scorer takes a PairBatch, not a {type(batch).__name__}")
        hidden = encode(self.model, batch.source_ids, batch.source_mask)
        return {
            "encoder_outputs": _encoded(hidden[batch.source_of.to(hidden.device)]),
            "attention_mask": batch.source_mask[batch.source_of],
            "decoder_input_ids": batch.input_ids,
        }


class PairSteps:
    """Steps of an encoder-decoder; every decoder begins with `start`, so none is padded."""

    def __init__(self, model: Any, batch: PromptBatch, start: Ids) -> None:
        self._model = model
        self._mask = batch.attention_mask
        self._hidden = encode(model, batch.input_ids, batch.attention_mask)
        self._start = torch.tensor([start] * len(batch.prompts), device=batch.input_ids.device)
        self._cache: Any = None
        self._cache_name = cache_name(model)

    def first(self) -> Tensor:
        """Read the beginning of every target; logits [rows, vocabulary] in the model's dtype."""
        return self._run(self._start)

    def next(self, tokens: Tensor) -> Tensor:
        """Read one more token [rows] per row; logits [rows, vocabulary] as `first` gives."""
        return self._run(tokens[:, None])

    def keep(self, rows: Tensor) -> bool:
        """Drop all rows but `rows` [kept], indices."""
        if not keep_rows(self._cache, rows):
            return False
        self._hidden, self._mask = self._hidden[rows], self._mask[rows]
        return True

    def left(self) -> tuple[Tensor, ...]:
        """The encoder's output and the cache."""
        return self._hidden, *tensors_of(self._cache)

    def _run(self, ids: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=_encoded(self._hidden),
            attention_mask=self._mask,
            decoder_input_ids=ids,
            use_cache=True,
            **{self._cache_name: self._cache},
        )
        self._cache = getattr(output, self._cache_name)
        logits: Tensor = output.logits[:, -1]
        return logits


class Seq2SeqPredictor:
    """An encoder-decoder that chooses, completes and generates.

    The prompt is the source, as the tokenizer writes it with its special tokens; a source that is
    too long loses its right end. An answer is a target by itself, so a leading space falls away,
    and it ends with the tokenizer's end token, which is scored too: the sum is that of the model's
    own loss over these labels. What a tokenizer puts before a target (BART's BOS, which its
    generation forces) is given and not scored.
    """

    head: Head = "seq2seq"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens_per_batch: int = 8192,
        passes: ForwardPasses | None = None,
    ) -> None:
        self.scorer = PairScorer(model, passes)
        self.decoder = GreedyDecoder(model, tokenizer)
        self.prompts = PromptPasses(
            self.scorer.passes, lambda batch: PairSteps(model, batch, self.start)
        )
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch
        self.start = (decoder_start(model), *self.encoder.prefix)

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """Tokenise `requests` into batches. Raises InputError for Classify and TokenNll."""
        questions = flatten(requests, self.head, (Complete, Choose, Weigh, Generate))
        asked = [(n, r) for n, r in enumerate(requests) if isinstance(r, Generate)]
        targets = self.encoder.plain([answer.lstrip(" ") for _, answer in questions])
        answers = [target + self.encoder.suffix for target in targets]
        sources = self.encoder.plain([p for p, _ in questions] + [r.prompt for _, r in asked])
        opened, cut = self._sources(sources)
        places = owners(requests) + [place for place, _ in asked]
        truncated = len({place for place, lost in zip(places, cut, strict=True) if lost})
        batches = self._pairs(opened[: len(questions)], answers, questions)
        prompts = [
            self._prompt(place, request, source)
            for (place, request), source in zip(asked, opened[len(questions) :], strict=True)
        ]
        scorer = self.scorer
        budget = Budget.of(self.tokens_per_batch, self._scored_rows, scorer.device)
        packed = pack_prompts(prompts, budget, scorer.pad_id, scorer.device, left=False)
        unknown = self.tokenizer.unk_token_id
        return finish(batches, requests, answers, truncated, unknown, packed)

    def record(self, prepared: PreparedRequests) -> None:
        """Keep what later passes can begin from; the model is unedited."""
        self.prompts.record(prepared.prompts)
        self.scorer.passes.record(prepared.batches, self.scorer.run)

    def log_probabilities(self, prepared: PreparedRequests, batch: Batch) -> Tensor:
        """Of what is scored in a batch, [scored] float32, for a gradient."""
        return self.scorer.log_probabilities(batch)

    def answer(self, prepared: PreparedRequests) -> list[Reply]:
        """Run the model; replies in the order of the requests. Raises NonFiniteLogits."""
        scores = self.scorer.score(prepared.batches, prepared.slots, ranked=is_ranked(prepared))
        continuations: dict[int, Continuation] = {}
        with torch.inference_mode():
            for batch in prepared.prompts:
                continuations |= self.decoder.decode(*self.prompts.begin(batch), batch.prompts)
                self.scorer.passes.answered()
        return assemble(prepared, scores, self.tokenizer, continuations)

    @property
    def _scored_rows(self) -> int:
        return max(1, SCORED_CELLS // self.scorer.vocabulary)

    def _sources(self, bodies: Sequence[Ids]) -> tuple[list[Ids], list[bool]]:
        """Sources with their special tokens, and whether each lost its right end."""
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        room = None
        if self.limit_tokens is not None:
            room = self.limit_tokens - len(prefix) - len(suffix)
        opened = [prefix + body[:room] + suffix for body in bodies]
        if not all(opened):
            raise InputError("a prompt has no tokens in the model's vocabulary; change it")
        return opened, [room is not None and len(body) > room for body in bodies]

    def _pairs(
        self, sources: Sequence[Ids], answers: Sequence[Ids], questions: Sequence[tuple[str, str]]
    ) -> list[Batch]:
        targets: dict[Ids, list[TokenRow]] = {}
        slot = 0
        first = len(self.start) - 1
        for source, answer, (_, text) in zip(sources, answers, questions, strict=True):
            if not answer or answer == self.encoder.suffix:
                raise InputError(f"answer {text!r} has no tokens in the model's vocabulary")
            self._check_room(len(answer), "an answer")
            scored = tuple(Scored(first + n, token, slot + n) for n, token in enumerate(answer))
            targets.setdefault(source, []).append(TokenRow(self.start + answer[:-1], scored))
            slot += len(answer)
        rows = [
            TokenRow(source, tuple(item for row in found for item in row.scored))
            for source, found in targets.items()
        ]
        packed = pack(rows, Budget.of(self.tokens_per_batch, self._scored_rows, self.scorer.device))
        batches = [self._collate(group, targets) for group in packed]
        if batches:
            self.scorer.calibrate(batches[0])
        return batches

    def _collate(self, group: Sequence[TokenRow], targets: dict[Ids, list[TokenRow]]) -> Batch:
        device, pad_id = self.scorer.device, self.scorer.pad_id
        rows = [
            (n, row) for n, source in enumerate(group) for row in merge_equal(targets[source.ids])
        ]
        sources = collate([TokenRow(row.ids, ()) for row in group], pad_id, device)
        batch = collate([row for _, row in rows], pad_id, device)
        return widen(
            batch,
            PairBatch,
            source_ids=sources.input_ids,
            source_mask=sources.attention_mask,
            source_of=torch.tensor([n for n, _ in rows], dtype=torch.int64, device=device),
        )

    def _prompt(self, place: int, request: Generate, source: Ids) -> Prompt:
        self._check_room(request.max_new_tokens, "a continuation")
        return Prompt(source, request.max_new_tokens, request.stop, request.enough, (place,))

    def _check_room(self, length: int, what: str) -> None:
        if self.limit_tokens is not None and len(self.start) + length - 1 > self.limit_tokens:
            raise InputError(
                f"{what} of {length} tokens does not fit into the model's {self.limit_tokens}; "
                "shorten it"
            )


def encode(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The encoder's last hidden states [sources, tokens, width]."""
    hidden: Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden


def _encoded(hidden: Tensor) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=hidden)


def decoder_start(model: Any) -> int:
    """The token that every target begins after."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for owner in (getattr(model, "generation_config", None), model.config):
            token = getattr(owner, name, None)
            if isinstance(token, int):
                return token
    raise InputError(
        f"{type(model).__name__} has no decoder_start_token_id; set it in its config.json"
    )
