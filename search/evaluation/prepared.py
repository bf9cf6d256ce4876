"""Requests made ready for a token-scoring model, and replies put together from its scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.evaluation.batching import Batch, Budget, TokenRow, collate, pack
from search.evaluation.encoding import Ids
from search.evaluation.token_scorer import TokenScorer, TokenScores
from tasks.base import Choose, Chosen, Complete, Completed, Reply, Request, Weigh, Weighed
from tasks.errors import InputError

log = logging.getLogger(__name__)

SCORED_CELLS = 2**27
"""Logits of one batch, scored places times vocabulary: 512 MB in float32."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Requests as batches; made once, answered by any number of trials.

    `spans`: per request the slots of its answer (Complete) or of each choice or pair. `slots`:
    results in all. `truncated`: answers whose prompt was cut to the model's length. `unknown`:
    answers that the tokenizer can only write with its token for unknown words.
    """

    batches: tuple[Batch, ...]
    requests: tuple[Request, ...]
    spans: tuple[tuple[range, ...], ...]
    slots: int
    truncated: int
    unknown: int


def flatten(requests: Sequence[Request], head: str) -> list[tuple[str, str]]:
    """All (prompt, answer) pairs: one for a Complete, one per choice of a Choose or Weigh."""
    pairs: list[tuple[str, str]] = []
    for request in requests:
        match request:
            case Complete(prompt, answer):
                pairs.append((prompt, answer))
            case Choose(prompt, choices):
                pairs.extend((prompt, choice) for choice in choices)
            case Weigh(own):
                pairs.extend(own)
            case _:
                raise InputError(
                    f"a {head} head cannot answer {type(request).__name__}; "
                    "use a model with a classification head"
                )
    return pairs


def prepare_batches(
    requests: Sequence[Request],
    rows: Sequence[TokenRow],
    answers: Sequence[Ids],
    truncated: int,
    scorer: TokenScorer,
    tokens_per_batch: int,
    unknown_id: int | None,
) -> Prepared:
    """Pack `rows` and note which slots answer which request.

    `answers`: the tokens of each flattened answer, whose slots follow one another.
    """
    spans: list[tuple[range, ...]] = []
    remaining = map(len, answers)
    start = 0
    for request in requests:
        parts = []
        for _ in range(_answers_of(request)):
            length = next(remaining)
            parts.append(range(start, start + length))
            start += length
        spans.append(tuple(parts))
    pad_id = _pad_id(scorer)
    scored = max(1, SCORED_CELLS // scorer.vocabulary)
    packed = pack(rows, Budget.of(tokens_per_batch, scored, scorer.device))
    if packed:
        scorer.calibrate(collate(packed[0][:2], pad_id, scorer.device))
    unknown = sum(unknown_id in answer for answer in answers)
    if truncated:
        log.warning("%d of %d prompts were cut to the model's length", truncated, len(answers))
    if unknown:
        log.warning("%d of %d answers have words unknown to the tokenizer", unknown, len(answers))
    batches = tuple(collate(group, pad_id, scorer.device) for group in packed)
    return Prepared(batches, tuple(requests), tuple(spans), start, truncated, unknown)


def _answers_of(request: Request) -> int:
    match request:
        case Choose(_, choices):
            return len(choices)
        case Weigh(pairs):
            return len(pairs)
    return 1


def _pad_id(scorer: TokenScorer) -> int:
    """The model's padding token; any other serves as well, since padding is masked."""
    pad = scorer.model.config.get_text_config().pad_token_id
    return pad if isinstance(pad, int) and 0 <= pad < scorer.vocabulary else 0


def assemble(prepared: Prepared, scores: TokenScores, tokenizer: Any) -> list[Reply]:
    """Replies in the order of the requests."""
    open_spans = [
        spans[0]
        for request, spans in zip(prepared.requests, prepared.spans, strict=True)
        if isinstance(request, Complete)
    ]
    said = [tuple(scores.tops[slot] for slot in span) for span in open_spans]
    unique = list(dict.fromkeys(said))
    decoded = tokenizer.batch_decode([list(ids) for ids in unique]) if unique else []
    texts = dict(zip(unique, decoded, strict=True))
    words = iter(texts[ids] for ids in said)
    replies: list[Reply] = []
    for request, spans in zip(prepared.requests, prepared.spans, strict=True):
        sums = [sum(scores.log_probabilities[slot] for slot in span) for span in spans]
        lengths = tuple(len(span) for span in spans)
        if isinstance(request, Complete):
            (span,) = spans
            ranks = [scores.ranks[slot] for slot in span]
            replies.append(Completed(sums[0], not any(ranks), ranks[0], next(words), lengths[0]))
        elif isinstance(request, Weigh):
            greedy = tuple(not any(scores.ranks[slot] for slot in span) for span in spans)
            replies.append(Weighed(tuple(sums), greedy, lengths))
        else:
            replies.append(Chosen(tuple(sums), lengths))
    return replies
