"""Answers of a masked-token head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from search.evaluation.batching import Batch, Scored, TokenRow, merge_equal
from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.passes import Passes
from search.evaluation.prepared import Prepared, assemble, flatten, owners, prepare_batches
from search.evaluation.token_scorer import TokenScorer
from tasks.base import MASK, Head, Reply, Request
from tasks.errors import InputError


class MaskedPredictor:
    """A masked language model that fills in answers.

    An answer of n tokens takes n masks. They are filled from left to right: the k-th token is
    scored with the earlier ones in place and the later ones masked, so an answer costs n rows and
    its log-likelihood is that of decoding it in this order.
    """

    head: Head = "masked"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens_per_batch: int = 8192,
        passes: Passes | None = None,
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError("a masked head needs a tokenizer with a mask token; this one has none")
        self.scorer = TokenScorer(model, passes)
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        """Tokenise `requests` (Choose, Complete) into batches. Raises InputError for others."""
        questions = flatten(requests, self.head)
        answers = self.encoder.plain([answer for _, answer in questions])
        prompts = self.encoder.plain(
            [
                self._masks(prompt, answer, len(ids))
                for (prompt, answer), ids in zip(questions, answers, strict=True)
            ]
        )
        rows: list[TokenRow] = []
        truncated: set[int] = set()
        slot = 0
        for place, (prompt, _), body, answer in zip(
            owners(requests), questions, prompts, answers, strict=True
        ):
            found, cut = self._rows(prompt, body, answer, slot)
            rows += found
            truncated |= {place} if cut else set()
            slot += len(answer)
        return prepare_batches(
            requests,
            merge_equal(rows),
            answers,
            len(truncated),
            self.scorer,
            self.tokens_per_batch,
            self.tokenizer.unk_token_id,
        )

    def record(self, prepared: Prepared) -> None:
        """Keep what later passes can begin from; the model is unedited."""
        self.scorer.passes.record(prepared.batches, self.scorer.run)

    def log_probabilities(self, prepared: Prepared, batch: Batch) -> Tensor:
        """Of what is scored in a batch, [scored] float32, for a gradient."""
        return self.scorer.log_probabilities(batch)

    def answer(self, prepared: Prepared) -> list[Reply]:
        """Run the model; replies in the order of the requests. Raises NonFiniteLogits."""
        scores = self.scorer.score(prepared.batches, prepared.slots)
        return assemble(prepared, scores, self.tokenizer)

    def _masks(self, prompt: str, answer: str, count: int) -> str:
        """`prompt` with its one mask written `count` times in the tokenizer's own way."""
        own = self.tokenizer.mask_token
        text = prompt.replace(MASK, own)
        if text.count(own) != 1:
            raise InputError(
                f"prompt {prompt!r} has {text.count(own)} masks, expected one {MASK} to fill in"
            )
        if not count:
            raise InputError(
                f"answer {answer!r} has no tokens in the model's vocabulary; "
                "give an answer that the tokenizer can write"
            )
        return text.replace(own, own * count)

    def _rows(self, prompt: str, body: Ids, answer: Ids, slot: int) -> tuple[list[TokenRow], bool]:
        mask = self.tokenizer.mask_token_id
        places = [place for place, token in enumerate(body) if token == mask]
        if len(places) != len(answer):
            raise InputError(
                f"prompt {prompt!r} has {len(places)} mask tokens, expected {len(answer)}; "
                "the tokenizer does not read its own mask token"
            )
        start, stop = self._window(len(body), places)
        tokens = list(self.encoder.prefix + body[start:stop] + self.encoder.suffix)
        rows = []
        for step, (place, token) in enumerate(zip(places, answer, strict=True)):
            position = place - start + len(self.encoder.prefix)
            rows.append(TokenRow(tuple(tokens), (Scored(position, token, slot + step),)))
            tokens[position] = token
        return rows, stop - start < len(body)

    def _window(self, length: int, places: Sequence[int]) -> tuple[int, int]:
        """The part of a text that fits: the left end goes first, then the right, never a mask."""
        room = length
        if self.limit_tokens is not None:
            room = self.limit_tokens - len(self.encoder.prefix) - len(self.encoder.suffix)
        excess = max(0, length - room)
        start = min(excess, places[0])
        stop = length - (excess - start)
        if stop <= places[-1]:
            raise InputError(
                f"an answer of {len(places)} tokens does not fit into the model's "
                f"{self.limit_tokens}; shorten it"
            )
        return start, stop
