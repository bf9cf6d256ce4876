"""Greedy decoding in batches: a key-value cache, and rows that end each in their own time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from search.evaluation.encoding import Ids
from search.evaluation.token_scorer import NonFiniteLogits
from search.reuse.batching import Budget, digest_of
from search.reuse.caches import tensors_of
from search.reuse.forward import ForwardPasses
from tasks.errors import InputError
from tasks.matching import is_decided

MAX_TEXTS = 4
"""Texts that are followed for one prompt where tokens tie."""


class Continuation(NamedTuple):
    """Generated text and the number of its tokens, the end token included.

    `tied`, `texts`: see `tasks.base.Generated`.
    """

    text: str
    length_tokens: int
    tied: int = 1
    texts: tuple[tuple[str, float], ...] = ()


_Ties = Mapping[int, tuple[int, list[int]]]
"""Where several tokens tie at the top, by row: how many, and the lowest `MAX_TEXTS` of them."""


@dataclass
class _Draft:
    """A text on its way: the number of its prompt, its tokens, its share among those that tied."""

    prompt: int
    ids: list[int]
    share: float = 1.0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be continued, and until when; `places` of the requests that ask for it.

    `whole`: the prompt is part of the text, as in `tasks.base.Generate`.
    """

    ids: Ids
    max_new_tokens: int
    stop: tuple[str, ...]
    enough: tuple[str, ...]
    places: tuple[int, ...]
    whole: bool = False

    @property
    def width(self) -> int:
        """Tokens of the prompt and of the longest continuation."""
        return len(self.ids) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of one batch. `input_ids`, `attention_mask` [prompts, tokens] int64, on the device.

    Padding stands on the side that the kind of model needs; its mask is 0.
    """

    prompts: tuple[Prompt, ...]
    input_ids: Tensor
    attention_mask: Tensor

    @property
    def tokens(self) -> int:
        """Tokens of the prompts, padding included."""
        return self.input_ids.numel()

    def key(self) -> str:
        """Digest of what the model reads; no batch that is scored has it."""
        return f"prompts-{digest_of(self.input_ids, self.attention_mask)}"

    def sample(self) -> PromptBatch:
        """The shortest and the longest of the prompts."""
        places = sorted({0, len(self.input_ids) - 1})
        prompts = tuple(self.prompts[place] for place in places if self.prompts)
        return PromptBatch(prompts, self.input_ids[places], self.attention_mask[places])


def merge_prompts(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Prompts that ask the same are decoded once; sorted by tokens."""
    merged: dict[tuple[Ids, int, tuple[str, ...], tuple[str, ...], bool], list[int]] = {}
    for prompt in prompts:
        key = (prompt.ids, prompt.max_new_tokens, prompt.stop, prompt.enough, prompt.whole)
        merged.setdefault(key, []).extend(prompt.places)
    return [Prompt(*key[:-1], tuple(places), key[-1]) for key, places in sorted(merged.items())]


def pack_prompts(
    prompts: Iterable[Prompt], budget: Budget, pad_id: int, device: torch.device, *, left: bool
) -> tuple[PromptBatch, ...]:
    """Batches of prompts of similar length, shortest first, within `budget`, padded.

    The budget's tokens count what will be generated, since the cache holds it; its `scored` bounds
    the rows, since each has its logits computed at every step. A further batch costs a pass for
    every new token, so the budget's padding is worth it as often.
    """
    groups: list[list[Prompt]] = []
    tokens = 0
    for prompt in sorted(merge_prompts(prompts), key=lambda prompt: (prompt.width, prompt.ids)):
        last = groups[-1] if groups else []
        padded = (len(last) + 1) * prompt.width
        tokens += prompt.width
        spare = budget.padding * prompt.max_new_tokens
        fits = padded <= budget.tokens and padded - tokens <= spare
        if last and fits and len(last) < budget.scored:
            last.append(prompt)
        else:
            groups.append([prompt])
            tokens = prompt.width
    return tuple(_collate(group, pad_id, device, left=left) for group in groups)


def _collate(
    prompts: Sequence[Prompt], pad_id: int, device: torch.device, *, left: bool
) -> PromptBatch:
    width = max(len(prompt.ids) for prompt in prompts)
    ids, mask = [], []
    for prompt in prompts:
        padding = width - len(prompt.ids)
        row, seen = (pad_id,) * padding, (0,) * padding
        ids.append(row + prompt.ids if left else prompt.ids + row)
        mask.append(seen + (1,) * len(prompt.ids) if left else (1,) * len(prompt.ids) + seen)
    return PromptBatch(
        tuple(prompts),
        torch.tensor(ids, dtype=torch.int64, device=device),
        torch.tensor(mask, dtype=torch.int64, device=device),
    )


class Steps(Protocol):
    """A batch on its way through a model, one token per row and call."""

    def first(self) -> Tensor:
        """Read the prompts: logits [rows, vocabulary] of the first new token."""
        ...

    def next(self, tokens: Tensor) -> Tensor:
        """Read one more token [rows] per row: logits [rows, vocabulary] of the one after it."""
        ...

    def keep(self, rows: Tensor) -> bool:
        """Drop all rows but `rows` [kept], indices; False, and nothing done, where it cannot."""
        ...

    def left(self) -> tuple[Tensor, ...]:
        """What steps so far have left for those that follow."""
        ...


class CausalSteps:
    """Steps of a causal model.

    Positions are counted from the first token that is no padding, as in `generate`.
    """

    def __init__(self, model: Any, batch: PromptBatch) -> None:
        self._model = model
        self._ids = batch.input_ids
        self._mask = batch.attention_mask
        self._cache: Any = None
        parameters = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in parameters
        self._cache_name = cache_name(model)
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def first(self) -> Tensor:
        """Read the prompts; logits [rows, vocabulary] in the model's dtype, on its device."""
        return self._run(self._ids, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def next(self, tokens: Tensor) -> Tensor:
        """Read one more token [rows] per row; logits [rows, vocabulary] as `first` gives."""
        positions = self._mask.sum(-1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], dim=-1)
        return self._run(tokens[:, None], positions)

    def keep(self, rows: Tensor) -> bool:
        """Drop all rows but `rows` [kept], indices."""
        if not keep_rows(self._cache, rows):
            return False
        self._mask = self._mask[rows]
        return True

    def left(self) -> tuple[Tensor, ...]:
        """The cache."""
        return tensors_of(self._cache)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        where = {"position_ids": positions} if self._positions else {}
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            use_cache=True,
            **{self._cache_name: self._cache},
            **where,
            **self._options,
        )
        self._cache = getattr(output, self._cache_name, None)
        if self._cache is None:
            raise InputError(
                f"{type(self._model).__name__} has no key-value cache, so it cannot generate; "
                "choose a task that scores given answers"
            )
        logits: Tensor = output.logits[:, -1]
        return logits


def cache_name(model: Any) -> str:
    """What a model calls its key-value cache, given and returned: transformers renamed it."""
    parameters = inspect.signature(model.forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def keep_rows(cache: Any, rows: Tensor) -> bool:
    """Drop all rows of a key-value cache but `rows` [kept], indices; False where it cannot."""
    if not hasattr(cache, "batch_select_indices"):
        return False
    cache.batch_select_indices(rows)
    return True


class PromptPasses:
    """The first pass over prompts, from where the unedited model's was recorded."""

    def __init__(self, passes: ForwardPasses, make: Callable[[PromptBatch], Steps]) -> None:
        """`make`: the steps of a batch, which have read nothing or less than the prompts."""
        self._passes = passes
        self._make = make

    def record(self, batches: Sequence[PromptBatch]) -> None:
        """Keep what later passes can begin from; the model is unedited."""
        self._passes.record_prompts(batches, lambda batch: self._first(batch)[1])

    def begin(self, batch: PromptBatch) -> tuple[Steps, Tensor]:
        """Steps that have read the prompts, and the logits [rows, vocabulary] that they gave."""
        begun: list[tuple[Steps, tuple[Tensor, ...]]] = []

        def first() -> tuple[Tensor, ...]:
            begun.append(self._first(batch))
            return begun[-1][1]

        self._passes.begin(batch, first)
        steps, (logits, *_) = begun[0]
        return steps, logits

    def _first(self, batch: PromptBatch) -> tuple[Steps, tuple[Tensor, ...]]:
        steps = self._make(batch)
        logits = steps.first()
        return steps, (logits, *steps.left())


class GreedyDecoder:
    """Continues prompts with the likeliest token each, by the model's own probabilities.

    Nothing of the checkpoint's generation settings is applied (beams, penalties, forbidden tokens)
    but its end tokens. Where up to `MAX_TEXTS` tokens tie, all are followed while a prompt has no
    more texts than that; then the lower one goes on for all, which is as good as any. Where more
    tie, the model says nothing: the lower one goes on with its own share alone.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.end_ids = end_ids(model, tokenizer)

    def decode(
        self, steps: Steps, logits: Tensor, prompts: Sequence[Prompt]
    ) -> dict[int, Continuation]:
        """Continuations of one batch by the place of their request. Raises NonFiniteLogits.

        `steps` have read the prompts; `logits` [rows, vocabulary] of the first new token.
        """
        texts: list[list[_Draft]] = [[_Draft(n, [])] for n in range(len(prompts))]
        tied = [1] * len(prompts)
        rows = [found[0] for found in texts]  # whose cache stands in which row
        while True:
            tokens, ties = _likeliest(logits, rows)
            grown = self._grow(rows, tokens, ties, texts, tied)
            for draft, _ in grown:
                draft.ended = draft.ended or self._ends(prompts[draft.prompt], draft.ids)
            live = [(draft, row) for draft, row in grown if not draft.ended]
            if not live:
                break
            # Copying the cache costs about a step: it pays once half of the rows have ended.
            branched = len(grown) > len(rows)
            if branched or 2 * len(live) <= len(rows):
                remaining = torch.tensor([row for _, row in live], device=logits.device)
                if steps.keep(remaining):
                    grown = live
                elif branched:
                    grown = _first_of_each(grown)
            rows = [draft for draft, _ in grown]
            said = [draft.ids[-1] for draft in rows]
            logits = steps.next(torch.tensor(said, device=logits.device))
        return {
            place: self._continuation(prompt, found, count)
            for prompt, found, count in zip(prompts, texts, tied, strict=True)
            for place in prompt.places
        }

    def _grow(
        self,
        rows: Sequence[_Draft],
        tokens: Sequence[int],
        ties: _Ties,
        texts: Sequence[list[_Draft]],
        tied: list[int],
    ) -> list[tuple[_Draft, int]]:
        """Every draft one token longer, those that tie as drafts of their own; and their rows."""
        grown = []
        for row, (draft, token) in enumerate(zip(rows, tokens, strict=True)):
            grown.append((draft, row))
            if draft.ended:
                continue
            own, (count, among) = texts[draft.prompt], ties.get(row, (1, [token]))
            tied[draft.prompt] = max(tied[draft.prompt], count)
            if count > MAX_TEXTS:
                draft.share /= count
            elif len(own) + count - 1 <= MAX_TEXTS:
                draft.share /= count
                others = [_Draft(draft.prompt, [*draft.ids, t], draft.share) for t in among[1:]]
                own += others
                grown += [(other, row) for other in others]
            draft.ids.append(token)
        return grown

    def _ends(self, prompt: Prompt, ids: list[int]) -> bool:
        if ids[-1] in self.end_ids or len(ids) >= prompt.max_new_tokens:
            return True
        if not prompt.stop and not prompt.enough:
            return False
        text = self._text(ids)
        return any(stop in text for stop in prompt.stop) or any(
            is_decided(text, answer) for answer in prompt.enough
        )

    def _continuation(self, prompt: Prompt, drafts: Sequence[_Draft], tied: int) -> Continuation:
        said = [self._until_stop(prompt, draft.ids) for draft in drafts]
        shares = tuple(zip(said, (draft.share for draft in drafts), strict=True))
        return Continuation(said[0], len(drafts[0].ids), tied, shares if tied > 1 else ())

    def _until_stop(self, prompt: Prompt, ids: list[int]) -> str:
        said = ids[:-1] if ids[-1] in self.end_ids else ids
        text = self._text([*prompt.ids, *said] if prompt.whole else said)
        for stop in prompt.stop:
            text = text.partition(stop)[0]
        return text

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def _first_of_each(grown: Sequence[tuple[_Draft, int]]) -> list[tuple[_Draft, int]]:
    """One draft a row, for a cache that cannot branch; the others end and earn nothing."""
    found: dict[int, tuple[_Draft, int]] = {}
    for draft, row in grown:
        if row in found:
            draft.ended, draft.share = True, 0.0
        else:
            found[row] = (draft, row)
    return list(found.values())


def _likeliest(logits: Tensor, rows: Sequence[_Draft]) -> tuple[list[int], _Ties]:
    """The likeliest token of each row, the lower of those that tie; and what ties.

    A row that has ended may hold anything. One transfer from the device, and one more for every
    row with a tie. Raises NonFiniteLogits.
    """
    values = logits.float()
    highest = values.amax(-1, keepdim=True)
    top = values == highest
    found = torch.stack([top.int().argmax(-1), top.sum(-1), torch.isfinite(highest[:, 0]).long()])
    tokens, counts, finite = found.tolist()
    bad = sum(not good and not draft.ended for good, draft in zip(finite, rows, strict=True))
    if bad:
        raise NonFiniteLogits(f"{bad} of {len(rows)} texts have no single most likely next token")
    ties = {
        row: (count, top[row].nonzero()[:MAX_TEXTS, 0].tolist())
        for row, (count, draft) in enumerate(zip(counts, rows, strict=True))
        if count > 1 and not draft.ended
    }
    return tokens, ties


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a text: the generation settings', else the model's, else the tokenizer's."""
    for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
        found = getattr(owner, "eos_token_id", None)
        if found is not None:
            return frozenset(found if isinstance(found, list | tuple) else [found])
    return frozenset()
