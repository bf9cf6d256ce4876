"""Answers of a masked-token head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.requests import (
    PreparedRequests,
    assemble,
    finish,
    flatten,
    make_batches,
    owners,
)
from search.evaluation.token_scorer import TokenScorer
from search.reuse.batching import Batch, Scored, TokenRow, merge_equal
from search.reuse.forward import ForwardPasses
from tasks.base import MASK, Choose, Complete, FillAtOnce, Head, Reply, Request, Weigh
from tasks.errors import InputError


class MaskedPredictor:
    """A masked language model that fills in answers.

    An answer of n tokens takes n masks. They are filled from left to right: the k-th token is
    scored with the earlier ones in place and the later ones masked, so an answer costs n rows and
    its log-likelihood is that of decoding it in this order. A FillAtOnce masks all of them at once
    instead, in one row.
    """

    head: Head = "masked"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens_per_batch: int = 8192,
        passes: ForwardPasses | None = None,
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError("a masked head needs a tokenizer with a mask token; this one has none")
        self.scorer = TokenScorer(model, passes)
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """Tokenise `requests` (Choose, Complete, FillAtOnce) into batches.

        Raises InputError for others.
        """
        requests = [self._shortened(request) for request in requests]
        questions = flatten(requests, self.head, (Complete, Choose, FillAtOnce, Weigh))
        answers = self.encoder.plain([answer for _, answer in questions])
        at_once = [isinstance(requests[place], FillAtOnce) for place in owners(requests)]
        prompts = self.encoder.plain(
            [
                "" if whole else self._masks(prompt, answer, len(ids))
                for (prompt, answer), ids, whole in zip(questions, answers, at_once, strict=True)
            ]
        )
        rows: list[TokenRow] = []
        truncated: set[int] = set()
        slot = 0
        for number, place in enumerate(owners(requests)):
            (prompt, text), body, answer = questions[number], prompts[number], answers[number]
            if isinstance(request := requests[place], FillAtOnce):
                row, answer, cut = self._at_once(prompt, text, request.masks, slot)
                found, answers[number] = [row], answer
            else:
                found, cut = self._rows(prompt, body, answer, slot)
            rows += found
            truncated |= {place} if cut else set()
            slot += len(answer)
        batches = make_batches(merge_equal(rows), self.scorer, self.tokens_per_batch)
        return finish(batches, requests, answers, len(truncated), self.tokenizer.unk_token_id)

    def record(self, prepared: PreparedRequests) -> None:
        """Keep what later passes can begin from; the model is unedited."""
        self.scorer.passes.record(prepared.batches, self.scorer.run)

    def log_probabilities(self, prepared: PreparedRequests, batch: Batch) -> Tensor:
        """Of what is scored in a batch, [scored] float32, for a gradient."""
        return self.scorer.log_probabilities(batch)

    def answer(self, prepared: PreparedRequests) -> list[Reply]:
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
                "give an answer that the tokenizer can represent"
            )
        return text.replace(own, own * count)

    def _rows(self, prompt: str, body: Ids, answer: Ids, slot: int) -> tuple[list[TokenRow], bool]:
        mask = self.tokenizer.mask_token_id
        places = [place for place, token in enumerate(body) if token == mask]
        if len(places) != len(answer):
            raise InputError(
                f"prompt {prompt!r} has {len(places)} mask tokens, expected {len(answer)}; "
                "the tokenizer does not recognise its own mask token"
            )
        start, stop = self._window(len(body), places)
        tokens = list(self.encoder.prefix + body[start:stop] + self.encoder.suffix)
        rows = []
        for step, (place, token) in enumerate(zip(places, answer, strict=True)):
            position = place - start + len(self.encoder.prefix)
            rows.append(TokenRow(tuple(tokens), (Scored(position, token, slot + step),)))
            tokens[position] = token
        return rows, stop - start < len(body)

    def _shortened(self, request: Request) -> Request:
        """A Choose whose `cut` part has its last tokens only."""
        if not isinstance(request, Choose) or request.cut is None:
            return request
        text, count = request.cut
        ids = self.encoder.plain([text])[0][-count:]
        short = self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        return replace(request, prompt=request.prompt.replace(text, short, 1), cut=None)

    def _at_once(self, prompt: str, text: str, masks: int, slot: int) -> tuple[TokenRow, Ids, bool]:
        """One row for all tokens of `text` after `prompt`, or for `masks` where it is empty."""
        mask = self.tokenizer.mask_token_id
        before: Ids
        prefix: Ids = ()
        suffix: Ids = ()
        if text:
            ids = self.encoder.plain([prompt + text])[0]
            answer = ids[len(ids) - self._answer_length(ids, text) :]
            before = ids[: len(ids) - len(answer)]
        else:
            before = self.encoder.plain([prompt])[0]
            answer, prefix, suffix = (mask,) * masks, self.encoder.prefix, self.encoder.suffix
        excess = 0
        if self.limit_tokens is not None:
            whole = len(prefix) + len(before) + len(answer) + len(suffix)
            excess = max(0, whole - self.limit_tokens)
        if excess > len(before):
            raise InputError(
                f"an answer of {len(answer)} tokens does not fit into the model's "
                f"{self.limit_tokens}; shorten it"
            )
        start = prefix + before[excess:]
        scored = tuple(
            Scored(len(start) + step, token, slot + step) for step, token in enumerate(answer)
        )
        return TokenRow(start + (mask,) * len(answer) + suffix, scored), answer, excess > 0

    def _answer_length(self, ids: Ids, text: str) -> int:
        """How many of the last tokens spell `text`, found as LASER's code finds it."""
        for length in range(1, len(ids) + 1):
            said = self.tokenizer.decode(list(ids[-length:]), clean_up_tokenization_spaces=False)
            if said.strip() == text.strip():
                return length
        raise InputError(
            f"answer {text!r} is tokenised differently at the end of its question; "
            "use the default scoring"
        )

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
