"""Requests made ready for a token-scoring model, and replies put together from its scores."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from search.evaluation.encoding import Ids
from search.evaluation.generation import Continuation, PromptBatch
from search.evaluation.token_scorer import TokenScorer, TokenScores
from search.reuse.batching import Batch, Budget, TokenRow, collate, pack
from search.reuse.shared_prompts import BranchedRow, collate_branched
from tasks.base import (
    Choose,
    Chosen,
    Complete,
    Completed,
    FillAtOnce,
    Generate,
    Generated,
    Reply,
    Request,
    TokenNll,
    TokenNlls,
    Weigh,
    Weighed,
)
from tasks.errors import InputError

log = logging.getLogger(__name__)

SCORED_CELLS = 2**27
"""Logits of one batch, scored places times vocabulary: 512 MB in float32."""


@dataclass(frozen=True, slots=True)
class PreparedRequests:
    """Requests as batches; made once, answered by any number of trials.

    `spans`: per request the slots of its answer or text, or of each choice or pair. `slots`:
    results in all. `truncated`: requests whose prompt was cut to the model's length. `unknown`:
    answers that the tokenizer can only write with its token for unknown words. `prompts`: what is
    to be continued; requests that ask the same share a place in it. `alike`: questions with choices
    that the tokenizer writes with the same tokens, so that no model can tell them apart.
    """

    batches: tuple[Batch, ...]
    requests: tuple[Request, ...]
    spans: tuple[tuple[range, ...], ...]
    slots: int
    truncated: int
    unknown: int
    prompts: tuple[PromptBatch, ...] = ()
    alike: int = 0


ANSWERED_BY = {"Classify": "classifier", "Generate": "causal or seq2seq", "TokenNll": "causal"}
"""Heads that answer what not every language model does."""


def flatten(
    requests: Sequence[Request],
    head: str,
    kinds: tuple[type, ...] = (Complete, Choose, Weigh),
) -> list[tuple[str, str]]:
    """All (prompt, answer) pairs: one for each answer, choice or whole text; `answers_of` each.

    Raises InputError for a request that is not of `kinds`.
    """
    pairs: list[tuple[str, str]] = []
    for request in requests:
        if not isinstance(request, kinds):
            name = type(request).__name__
            needed = ANSWERED_BY.get(name, "causal or masked")
            raise InputError(
                f"a {head} head cannot answer {name}; use a model with a {needed} head"
            )
        match request:
            case Complete(prompt, answer):
                pairs.append((prompt, answer))
            case Choose(prompt, choices):
                pairs.extend((prompt, choice) for choice in choices)
            case FillAtOnce(prompt, choices, masks):
                pairs.extend((prompt, choice) for choice in choices)
                pairs.extend([(prompt, "")] if masks else [])
            case Weigh(own):
                pairs.extend(own)
            case Generate(prompt, _, answer) if answer:
                pairs.append((prompt, answer))
            case TokenNll(text):
                pairs.append(("", text))
    return pairs


def make_batches(
    rows: Sequence[TokenRow],
    scorer: TokenScorer,
    tokens_per_batch: int,
    shared: Sequence[BranchedRow] = (),
) -> list[Batch]:
    """Pack `rows` into batches; `shared`: rows of several choices each, which it supports."""
    pad_id, device = scorer.pad_id, scorer.device
    scored = max(1, SCORED_CELLS // scorer.vocabulary)
    budget = Budget.of(tokens_per_batch, scored, device)
    packed = pack(rows, budget)
    if packed:
        scorer.calibrate(collate(packed[0][:2], pad_id, device))
    batches = [collate(group, pad_id, device) for group in packed]
    return batches + [collate_branched(group, pad_id, device) for group in pack(shared, budget)]


def finish(
    batches: Sequence[Batch],
    requests: Sequence[Request],
    answers: Sequence[Ids],
    truncated: int,
    unknown_id: int | None,
    prompts: Sequence[PromptBatch] = (),
) -> PreparedRequests:
    """Note which slots answer which request, and say what was cut or is unknown.

    `answers`: the tokens of each flattened answer, whose slots follow one another.

    Raises InputError where the tokenizer can tell the choices of no question apart.
    """
    spans: list[tuple[range, ...]] = []
    remaining = map(len, answers)
    start = 0
    for request in requests:
        parts = []
        for _ in range(answers_of(request)):
            length = next(remaining)
            parts.append(range(start, start + length))
            start += length
        spans.append(tuple(parts))
    unknown = sum(unknown_id in answer for answer in answers)
    alike = _count_alike(requests, answers, unknown_id)
    if truncated:
        log.warning(
            "%d of %d prompts were truncated to the model's length", truncated, len(requests)
        )
    if unknown:
        log.warning(
            "%d of %d answers contain words that the tokenizer does not know", unknown, len(answers)
        )
    return PreparedRequests(
        tuple(batches),
        tuple(requests),
        tuple(spans),
        start,
        truncated,
        unknown,
        tuple(prompts),
        alike,
    )


def _count_alike(
    requests: Sequence[Request], answers: Sequence[Ids], unknown_id: int | None
) -> int:
    """Questions with two choices of the same tokens. Raises InputError where all have them.

    Words that are unknown to the tokenizer are alike too; they are counted and never refused, since
    `finish` says how many there are.
    """
    remaining = iter(answers)
    asked = refused = 0
    alike: list[tuple[str, str]] = []
    for request in requests:
        own = [next(remaining) for _ in range(answers_of(request))]
        if isinstance(request, Choose):
            pairs: Sequence[tuple[str, str]] = [("", choice) for choice in request.choices]
        elif isinstance(request, Weigh):
            pairs = request.pairs
        else:
            continue
        asked += 1
        first: dict[tuple[str, Ids], str] = {}
        for (prompt, text), ids in zip(pairs, own, strict=True):
            if (prompt, ids) in first:
                alike.append((first[prompt, ids], text))
                refused += unknown_id not in ids
                break
            first[prompt, ids] = text
    if refused and refused == asked:
        raise InputError(
            f"the tokenizer gives {alike[0][0]!r} and {alike[0][1]!r} the same tokens, and "
            f"so two choices of every question, so no model can tell them apart; "
            "use other choices, or a model whose tokenizer distinguishes them"
        )
    if alike:
        log.warning(
            "%d of %d questions have choices that the tokenizer gives the same tokens, such "
            "as %r and %r; these always tie",
            len(alike),
            asked,
            *alike[0],
        )
    return len(alike)


def answers_of(request: Request) -> int:
    """How many answers of a request are scored."""
    match request:
        case Choose(_, choices):
            return len(choices)
        case FillAtOnce(_, choices, masks):
            return len(choices) + bool(masks)
        case Weigh(pairs):
            return len(pairs)
        case Generate(_, _, answer):
            return int(bool(answer))
    return 1


def owners(requests: Sequence[Request]) -> list[int]:
    """The place of its request for each flattened answer."""
    return [n for n, request in enumerate(requests) for _ in range(answers_of(request))]


def is_ranked(prepared: PreparedRequests) -> bool:
    """Whether some reply says what the model would have said instead."""
    return any(isinstance(request, Complete | FillAtOnce | Weigh) for request in prepared.requests)


def assemble(
    prepared: PreparedRequests,
    scores: TokenScores,
    tokenizer: Any,
    continuations: Mapping[int, Continuation] = MappingProxyType({}),
) -> list[Reply]:
    """Replies in the order of the requests; `continuations` by the place of their request."""
    words = iter(_said(prepared, scores, tokenizer))
    replies: list[Reply] = []
    for place, (request, spans) in enumerate(zip(prepared.requests, prepared.spans, strict=True)):
        sums = tuple(sum(scores.log_probabilities[slot] for slot in span) for span in spans)
        lengths = tuple(len(span) for span in spans)
        flat = all(scores.flat[slot] for span in spans for slot in span)
        match request:
            case Complete():
                ((greedy, tied),) = (_first_choice(scores, span) for span in spans)
                first = spans[0][0]
                replies.append(
                    Completed(
                        sums[0],
                        greedy,
                        scores.ranks[first],
                        next(words),
                        lengths[0],
                        rank_tied=scores.ties[first],
                        tied=tied,
                    )
                )
            case Weigh():
                shares, ties = zip(*(_first_choice(scores, span) for span in spans), strict=True)
                replies.append(Weighed(sums, shares, lengths, flat, ties))
            case Generate():
                said = continuations[place]
                replies.append(
                    Generated(
                        said.text,
                        said.length_tokens,
                        sum(sums),
                        sum(lengths),
                        tied=said.tied,
                        texts=said.texts,
                    )
                )
            case FillAtOnce() if request.masks:
                filled = tokenizer.decode([scores.tops[slot] for slot in spans[-1]])
                replies.append(Generated(filled, request.masks, sums[0], lengths[0]))
            case TokenNll():
                replies.append(TokenNlls(-sums[0], lengths[0]))
            case _:
                replies.append(Chosen(sums, lengths, flat))
    return replies


def _first_choice(scores: TokenScores, span: range) -> tuple[float, int]:
    """How often greedy decoding says an answer, and the most tokens that tie at one position."""
    most = max(scores.top_ties[slot] for slot in span)
    if any(scores.ranks[slot] for slot in span):
        return 0.0, most
    return 1.0 / math.prod(scores.top_ties[slot] for slot in span), most


def _said(prepared: PreparedRequests, scores: TokenScores, tokenizer: Any) -> list[str]:
    """The model's first choices at the places of each open answer, decoded; equal ones once."""
    said = [
        tuple(scores.tops[slot] for slot in spans[0])
        for request, spans in zip(prepared.requests, prepared.spans, strict=True)
        if isinstance(request, Complete)
    ]
    unique = list(dict.fromkeys(said))
    decoded = tokenizer.batch_decode([list(ids) for ids in unique]) if unique else []
    texts = dict(zip(unique, decoded, strict=True))
    return [texts[ids] for ids in said]
