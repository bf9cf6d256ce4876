"""Answers of a next-token head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.evaluation.batching import Scored, TokenRow, merge_prefixes
from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.prepared import Prepared, assemble, flatten, prepare_batches
from search.evaluation.token_scorer import TokenScorer
from tasks.base import Head, Reply, Request
from tasks.errors import InputError


class CausalPredictor:
    """A causal language model that chooses and completes.

    A row is the prompt and all but the last token of the answer; the answer's tokens are scored
    where they are predicted. Equal rows and rows that begin another run once, so choices of one
    token cost one pass per question. A prompt that is too long loses its left end, which
    `Prepared.truncated` counts.
    """

    head: Head = "causal"

    def __init__(self, model: Any, tokenizer: Any, tokens_per_batch: int = 8192) -> None:
        self.scorer = TokenScorer(model)
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        """Tokenise `requests` (Choose, Complete) into batches. Raises InputError for others."""
        questions = flatten(requests, self.head)
        rows, answers = [], []
        slot = truncated = 0
        for prompt, answer in self.encoder.split(questions):
            row, cut = self._row(prompt, answer, slot)
            rows.append(row)
            answers.append(answer)
            truncated += cut
            slot += len(answer)
        return prepare_batches(
            requests,
            merge_prefixes(rows),
            answers,
            truncated,
            self.scorer,
            self.tokens_per_batch,
            self.tokenizer.unk_token_id,
        )

    def answer(self, prepared: Prepared) -> list[Reply]:
        """Run the model; replies in the order of the requests. Raises NonFiniteLogits."""
        scores = self.scorer.score(prepared.batches, prepared.slots)
        return assemble(prepared, scores, self.tokenizer)

    def _row(self, prompt: Ids, answer: Ids, slot: int) -> tuple[TokenRow, bool]:
        context = self.encoder.open(prompt) or self._start()
        read = answer[:-1]
        excess = 0
        if self.limit_tokens is not None:
            excess = max(0, len(context) + len(read) - self.limit_tokens)
        if excess:
            kept = len(context) - len(prompt)
            if excess >= len(prompt):
                raise InputError(
                    f"an answer of {len(answer)} tokens leaves no room for its prompt in the "
                    f"model's {self.limit_tokens}; shorten it"
                )
            context = context[:kept] + context[kept + excess :]
        first = len(context) - 1
        scored = tuple(
            Scored(first + step, token, slot + step) for step, token in enumerate(answer)
        )
        return TokenRow(context + read, scored), excess > 0

    def _start(self) -> Ids:
        """What stands before an answer without a prompt: BOS, or the end of an earlier text."""
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self.tokenizer, name, None)
            if token is not None:
                return (token,)
        raise InputError("an empty prompt needs a tokenizer with a BOS or EOS token")
