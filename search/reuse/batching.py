"""Token rows and the padded batches they are packed into: plain data that anyone may inspect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, order=True)
class Scored:
    """One result that a row owes: at `position`, how likely is token `target`; goes to `slot`.

    A classification head scores the row as a whole: its position and target are 0 and unused.
    """

    position: int
    target: int
    slot: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One sequence as the model reads it, without padding, and what is scored in it.

    `types`: token type ids, of the length of `ids`, or empty where the model takes none.
    """

    ids: tuple[int, ...]
    scored: tuple[Scored, ...]
    types: tuple[int, ...] = ()


Row = TypeVar("Row", bound=TokenRow)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one forward pass, padded on the right.

    `input_ids`, `attention_mask` [rows, tokens] int64, `token_type_ids` the same or None. The
    scored places, all [scored] int64: `rows`, `positions`, `targets`, and `slots`, where a result
    belongs among all results of the prepared requests. All on the model's input device.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    rows: Tensor
    positions: Tensor
    targets: Tensor
    slots: Tensor

    @property
    def tokens(self) -> int:
        """Tokens of the pass, padding included."""
        return self.input_ids.numel()

    @property
    def divides(self) -> bool:
        """Whether there are two rows or more."""
        return len(self.input_ids) > 1

    def key(self) -> str:
        """Digest of what the model reads; the same in every process."""
        return digest_of(self.input_ids, self.attention_mask, self.token_type_ids)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half of the rows; what is scored keeps its order."""
        middle = len(self.input_ids) // 2
        return self._part(0, middle), self._part(middle, len(self.input_ids))

    def _part(self, start: int, stop: int) -> Batch:
        return Batch(**self._between(start, stop))

    def _between(self, start: int, stop: int) -> dict[str, Any]:
        chosen = (self.rows >= start) & (self.rows < stop)
        mask = self.attention_mask[start:stop]
        width = max(1, int(mask.sum(-1).max()))
        types = self.token_type_ids
        return {
            "input_ids": self.input_ids[start:stop, :width],
            "attention_mask": mask[:, :width],
            "token_type_ids": None if types is None else types[start:stop, :width],
            "rows": self.rows[chosen] - start,
            "positions": self.positions[chosen],
            "targets": self.targets[chosen],
            "slots": self.slots[chosen],
        }


B = TypeVar("B", bound=Batch)


def widen(batch: Batch, kind: type[B], **further: Tensor) -> B:
    """The batch as one of another kind, whose own fields are `further`."""
    own = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    return kind(**own, **further)


def digest_of(*tensors: Tensor | None) -> str:
    """Hexadecimal digest of shapes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        if tensor is not None:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def by_slot(batches: Sequence[Batch], found: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """What batches gave, [scored, fields] each, as `shape` [slots, fields] float64 on the CPU.

    In one transfer: while the host waits for one batch, the device would run out of work. Slots
    that no batch fills are 0.
    """
    if not batches:
        return torch.zeros(shape, dtype=torch.float64)
    home = found[0].device
    values = torch.cat([one.to(home) for one in found])
    results = values.new_zeros(shape)
    results[torch.cat([batch.slots.to(home) for batch in batches])] = values
    return results.cpu().double()


def merge_equal(rows: Iterable[TokenRow]) -> list[TokenRow]:
    """Merge rows of the same tokens into one; sorted by tokens."""
    merged: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Scored]] = {}
    for row in rows:
        merged.setdefault((row.ids, row.types), []).extend(row.scored)
    return [
        TokenRow(ids, tuple(sorted(scored)), types)
        for (ids, types), scored in sorted(merged.items(), key=lambda item: item[0])
    ]


def merge_prefixes(rows: Iterable[TokenRow]) -> list[TokenRow]:
    """Merge rows that begin another row into it: causal attention gives them the same results.

    In the order of tokens a prefix stands right before the rows that it begins, so one pass from
    the end finds all.
    """
    merged: list[TokenRow] = []
    for row in reversed(merge_equal(rows)):
        last = merged[-1] if merged else None
        if last is not None and last.ids[: len(row.ids)] == row.ids:
            merged[-1] = TokenRow(last.ids, tuple(sorted(last.scored + row.scored)))
        else:
            merged.append(row)
    merged.reverse()
    return merged


PASS_TOKENS_CPU = 64
"""What a forward pass costs beyond its tokens, in tokens: 50 for BERT-base, 140 for a model of
200,000 parameters, on two cores of a CPU."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one batch may hold.

    `tokens`: with padding. `scored`: places whose logits are computed. `padding`: tokens of
    padding that are still cheaper than one more forward pass. A row alone may exceed all three.
    """

    tokens: int
    scored: int
    padding: int

    @staticmethod
    def of(tokens: int, scored: int, device: torch.device) -> Budget:
        """Budget for a device: on a CPU arithmetic is dear and a further pass nearly free."""
        return Budget(tokens, scored, PASS_TOKENS_CPU if device.type == "cpu" else tokens)


def pack(rows: Iterable[Row], budget: Budget) -> list[list[Row]]:
    """Group rows of similar length, shortest first, within `budget`.

    The order depends on the rows' contents only, so the same questions in another order make the
    same batches.
    """
    batches: list[list[Row]] = []
    tokens = scored = 0
    for row in sorted(rows, key=lambda row: (len(row.ids), row.ids, row.types)):
        last = batches[-1] if batches else []
        padded = (len(last) + 1) * len(row.ids)
        tokens += len(row.ids)
        scored += len(row.scored)
        if (
            last
            and padded <= budget.tokens
            and scored <= budget.scored
            and padded - tokens <= budget.padding
        ):
            last.append(row)
        else:
            batches.append([row])
            tokens, scored = len(row.ids), len(row.scored)
    return batches


def collate(rows: Sequence[TokenRow], pad_id: int, device: torch.device) -> Batch:
    """Pad `rows` on the right with `pad_id` (type 0, mask 0) and list what is scored."""
    width = max(len(row.ids) for row in rows)
    ids = [row.ids + (pad_id,) * (width - len(row.ids)) for row in rows]
    mask = [(1,) * len(row.ids) + (0,) * (width - len(row.ids)) for row in rows]
    types = [row.types + (0,) * (width - len(row.types)) for row in rows]
    scored = [(index, item) for index, row in enumerate(rows) for item in row.scored]

    def tensor(values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return Batch(
        input_ids=tensor(ids),
        attention_mask=tensor(mask),
        token_type_ids=tensor(types) if rows[0].types else None,
        rows=tensor([index for index, _ in scored]),
        positions=tensor([item.position for _, item in scored]),
        targets=tensor([item.target for _, item in scored]),
        slots=tensor([item.slot for _, item in scored]),
    )
