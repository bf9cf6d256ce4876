"""The choices of one question in one row: their prompt is read once, each choice branches off it.

A choice sees the prompt and itself, at the positions that it would have alone, so results are those
of separate rows but for the order of summation. Whether a model supports it is tried on its own
rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from search.reuse.batching import (
    Batch,
    TokenRow,
    collate,
    digest_of,
    merge_prefixes,
    widen,
)

WORTH_IT = 0.8
"""Tokens of the shared row over those of separate rows, up to which it is used: a mask of its own
costs attention its fastest kernels."""


@dataclass(frozen=True, slots=True)
class BranchedRow(TokenRow):
    """A trunk of `trunk` tokens and what follows it in turn, beginning at each of `starts`."""

    trunk: int = 0
    starts: tuple[int, ...] = ()

    def branches(self) -> list[int]:
        """Per token the number of its branch, 0 in the trunk."""
        ends = (*self.starts[1:], len(self.ids))
        found = [0] * self.trunk
        for number, (start, end) in enumerate(zip(self.starts, ends, strict=True), start=1):
            found += [number] * (end - start)
        return found

    def places(self) -> list[int]:
        """Per token its position in the text that the model would read by itself."""
        begins = (0, *(start - self.trunk for start in self.starts))
        return [place - begins[branch] for place, branch in enumerate(self.branches())]


@dataclass(frozen=True, slots=True)
class BranchedBatch(Batch):
    """`branches`, `position_ids` [rows, tokens] int64: see `BranchedRow`; 0 in padding."""

    branches: Tensor
    position_ids: Tensor

    def key(self) -> str:
        """Digest of what the model reads."""
        return digest_of(self.input_ids, self.attention_mask, self.branches, self.position_ids)

    def inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """What the model is called with; the mask is added to attention scores of `dtype`."""
        order = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        own = self.branches[:, :, None] == self.branches[:, None, :]
        trunk = self.branches[:, None, :] == 0
        seen = (own | trunk) & (order[None, :, None] >= order[None, None, :])
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        mask.masked_fill_(~seen, torch.finfo(dtype).min)
        return {
            "input_ids": self.input_ids,
            "attention_mask": mask[:, None],
            "position_ids": self.position_ids,
        }

    def _part(self, start: int, stop: int) -> BranchedBatch:
        found = self._between(start, stop)
        width = found["input_ids"].shape[1]
        return BranchedBatch(
            **found,
            branches=self.branches[start:stop, :width],
            position_ids=self.position_ids[start:stop, :width],
        )


def share_prompt(rows: Iterable[TokenRow]) -> BranchedRow | None:
    """The rows of one question as one; None where that saves too little."""
    merged = merge_prefixes(rows)
    ends = zip(merged[0].ids, merged[-1].ids, strict=False)  # sorted: what these share, all share
    trunk = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))
    separate = sum(len(row.ids) for row in merged)
    if len(merged) < 2 or trunk + separate - trunk * len(merged) > WORTH_IT * separate:
        return None
    ids = merged[0].ids[:trunk]
    starts, scored = [], []
    for row in merged:
        shift = len(ids) - trunk
        starts.append(len(ids))
        ids += row.ids[trunk:]
        scored += [
            item if item.position < trunk else replace(item, position=item.position + shift)
            for item in row.scored
        ]
    return BranchedRow(ids, tuple(sorted(scored)), (), trunk, tuple(starts))


def collate_branched(
    rows: Sequence[BranchedRow], pad_id: int, device: torch.device
) -> BranchedBatch:
    """Pad `rows` on the right and list what is scored, as `collate` does."""
    batch = collate(rows, pad_id, device)
    width = batch.input_ids.shape[1]

    def padded(values: list[list[int]]) -> Tensor:
        full = [line + [0] * (width - len(line)) for line in values]
        return torch.tensor(full, dtype=torch.int64, device=device)

    return widen(
        batch,
        BranchedBatch,
        branches=padded([row.branches() for row in rows]),
        position_ids=padded([row.places() for row in rows]),
    )
