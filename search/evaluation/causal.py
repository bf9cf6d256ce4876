"""Answers of a next-token head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from search.evaluation.chat import ChatTemplate
from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.generation import (
    CausalSteps,
    Continuation,
    GreedyDecoder,
    Prompt,
    PromptBatch,
    PromptPasses,
    pack_prompts,
)
from search.evaluation.requests import (
    SCORED_CELLS,
    PreparedRequests,
    assemble,
    finish,
    flatten,
    is_ranked,
    make_batches,
    owners,
)
from search.evaluation.token_scorer import TokenScorer
from search.reuse.batching import (
    Batch,
    Budget,
    Scored,
    TokenRow,
    collate,
    merge_prefixes,
)
from search.reuse.forward import ForwardPasses
from search.reuse.shared_prompts import BranchedRow, collate_branched, share_prompt
from tasks.base import Choose, Complete, Generate, Head, Reply, Request, TokenNll, Weigh
from tasks.errors import InputError

WINDOW_TOKENS = 2048
"""Window of a model that has no limit of its own."""


class CausalPredictor:
    """A causal language model that chooses, completes, generates and reads texts.

    A row is the prompt and all but the last token of the answer; the answer's tokens are scored
    where they are predicted. Equal rows and rows that begin another run once, so choices of one
    token cost one pass per question. A prompt that is too long loses its left end, which
    `PreparedRequests.truncated` counts. A whole text (TokenNll) begins after what the tokenizer
    puts before a text, else after its BOS or EOS, and is never cut. With `chat`, every prompt is a
    user's message in the tokenizer's chat template, and the answer is the assistant's.
    """

    head: Head = "causal"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens_per_batch: int = 8192,
        passes: ForwardPasses | None = None,
        *,
        chat: bool = False,
    ) -> None:
        self.scorer = TokenScorer(model, passes)
        self.decoder = GreedyDecoder(model, tokenizer)
        self.prompts = PromptPasses(self.scorer.passes, lambda batch: CausalSteps(model, batch))
        self.chat = ChatTemplate(tokenizer) if chat else None
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        self.limit_tokens = max_tokens(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """Tokenise `requests` into batches. Raises InputError for a Classify."""
        if self.chat:
            requests = [self.chat.wrap(request) for request in requests]
        questions = flatten(requests, self.head, (Complete, Choose, Weigh, Generate, TokenNll))
        rows: list[TokenRow] = []
        choices: dict[int, list[TokenRow]] = defaultdict(list)
        answers = []
        truncated: set[int] = set()
        slot = 0
        encoded = self.encoder.split(questions)
        for place, (prompt, answer) in zip(owners(requests), encoded, strict=True):
            request = requests[place]
            if isinstance(request, TokenNll):
                rows += self._windows(request, answer, slot)
            else:
                row, cut = self._row(prompt, answer, slot)
                own = choices[place] if isinstance(request, Choose) else rows
                own.append(row)
                truncated |= {place} if cut else set()
            answers.append(answer)
            slot += len(answer)
        prompts, cut_prompts = self._prompts(requests)
        shared = self._shared(choices)
        rows += [row for place, own in choices.items() if place not in shared for row in own]
        batches = make_batches(
            merge_prefixes(rows), self.scorer, self.tokens_per_batch, list(shared.values())
        )
        lost, unknown = len(truncated | cut_prompts), self.tokenizer.unk_token_id
        return finish(batches, requests, answers, lost, unknown, prompts)

    def _shared(self, choices: Mapping[int, Sequence[TokenRow]]) -> dict[int, BranchedRow]:
        """Questions whose choices share a row, if the model supports that; tried on the longest."""
        found = {place: share_prompt(rows) for place, rows in choices.items()}
        shared = {place: row for place, row in found.items() if row is not None}
        if not shared:
            return {}
        longest = max(shared, key=lambda place: max(len(row.ids) for row in choices[place]))
        pad_id, device = self.scorer.pad_id, self.scorer.device
        separate = collate(merge_prefixes(choices[longest]), pad_id, device)
        self.scorer.calibrate(separate)
        together = collate_branched([shared[longest]], pad_id, device)
        return shared if self.scorer.supports_branches(together, separate) else {}

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

    def _row(self, prompt: Ids, answer: Ids, slot: int) -> tuple[TokenRow, bool]:
        read = answer[:-1]
        context, cut = self._context(prompt, len(read), "an answer", len(answer))
        first = len(context) - 1
        scored = tuple(
            Scored(first + step, token, slot + step) for step, token in enumerate(answer)
        )
        return TokenRow(context + read, scored), cut

    def _context(self, prompt: Ids, room: int, what: str, length: int) -> tuple[Ids, bool]:
        """What is read before `room` further tokens, and whether the prompt's left end was cut."""
        # A chat template spells out its own beginning, as `apply_chat_template` has it.
        context = (prompt if self.chat else self.encoder.open(prompt)) or self._start()
        excess = 0
        if self.limit_tokens is not None:
            excess = max(0, len(context) + room - self.limit_tokens)
        if not excess:
            return context, False
        opening = len(context) - len(prompt)
        if excess >= len(prompt):
            raise InputError(
                f"{what} of {length} tokens leaves no room for its prompt in the "
                f"model's {self.limit_tokens}; shorten it"
            )
        return context[:opening] + context[opening + excess :], True

    def _windows(self, request: TokenNll, text: Ids, slot: int) -> list[TokenRow]:
        """The text in windows; each token is predicted in one of them."""
        limit = self.limit_tokens or WINDOW_TOKENS
        window = min(request.window_tokens or limit, limit)
        stride = min(request.stride_tokens or window, window)
        start = self.encoder.open(()) or self._start()
        stream = start + text
        rows = []
        done = 0
        while done < len(text):
            end = min(len(text), done + stride if done else window - len(start) + 1)
            last = len(start) + end - 1  # the token before the last that is predicted
            first = max(0, last - window)
            scored = tuple(
                Scored(len(start) + token - 1 - first, text[token], slot + token)
                for token in range(done, end)
            )
            rows.append(TokenRow(stream[first:last], scored))
            done = end
        return rows

    def _prompts(self, requests: Sequence[Request]) -> tuple[tuple[PromptBatch, ...], set[int]]:
        """What is to be generated, as batches, and the requests whose prompts were cut."""
        asked = [(n, r) for n, r in enumerate(requests) if isinstance(r, Generate)]
        # A space at the end belongs to the next word, here as where answers are scored.
        encoded = self.encoder.plain([request.prompt.rstrip(" ") for _, request in asked])
        prompts = []
        truncated: set[int] = set()
        for (place, request), ids in zip(asked, encoded, strict=True):
            room = request.max_new_tokens - 1
            context, cut = self._context(ids, room, "a continuation", request.max_new_tokens)
            prompts.append(
                Prompt(
                    context,
                    request.max_new_tokens,
                    request.stop,
                    request.enough,
                    (place,),
                    request.whole,
                )
            )
            truncated |= {place} if cut else set()
        scorer = self.scorer
        rows = max(1, SCORED_CELLS // scorer.vocabulary)
        budget = Budget.of(self.tokens_per_batch, rows, scorer.device)
        return pack_prompts(prompts, budget, scorer.pad_id, scorer.device, left=True), truncated

    def _start(self) -> Ids:
        """What stands before an answer without a prompt: BOS, or the end of an earlier text."""
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self.tokenizer, name, None)
            if token is not None:
                return (token,)
        raise InputError("an empty prompt needs a tokenizer with a BOS or EOS token")
