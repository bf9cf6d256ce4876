"""Single entries go, the smallest: magnitude pruning, exact and as LASER's code has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.cuts.kinds.base import Kind, Shape, Source
from search.cuts.rules import RankRule, fraction_of, number_text

if TYPE_CHECKING:
    from torch import Tensor


class EntryKind(Kind):
    """A kind that keeps the fraction rho of the entries; which, it says in `edited`."""

    rules = ("rho",)

    def effect(
        self,
        rule: RankRule,
        max_rank: int,
        spectrum: Sequence[float] | None = None,
        shape: Shape | None = None,
    ) -> str:
        """The fraction as it was given; all or nothing are known by it alone."""
        if rule.value == 1:
            return ""
        return "zero:0" if rule.value == 0 else f"{self.name}:{number_text(rule.value)}"

    def stored(
        self, rule: RankRule, shape: Shape, spectrum: Sequence[float] | None = None
    ) -> float:
        """The entries kept; where they lie is not counted."""
        return shape[0] * shape[1] * rule.value


class Prune(EntryKind):
    """The smallest absolute entries become zero."""

    name = "prune"
    about = "zeroes the smallest absolute entries and keeps the fraction rho of them"

    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """A new matrix [out, in] of the original's dtype; see `pruned`."""
        return pruned(original, rule.value)

    def as_laser(self, model_type: str) -> str:
        """LASER's code zeroes one entry more."""
        return PrunePaper.name


class PrunePaper(EntryKind):
    """As LASER's code prunes: one entry more than the fraction, and whatever equals it."""

    name = "prune-paper"
    about = "zeroes one entry more than the fraction, as LASER's code does (for parity)"

    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """A new matrix [out, in] of the original's dtype; see `pruned_as_laser`."""
        return pruned_as_laser(original, rule.value)


def pruned(weight: Tensor, rho: float) -> Tensor:
    """`weight` [out, in] with all but the fraction `rho` of its entries, the largest, set to zero.

    At least one entry stays unless `rho` is 0. Among equal absolute values the first in row order
    stay, so the result is the same on every device. Returns a new tensor of the same dtype.
    """
    import torch

    flat = weight.reshape(-1)
    kept = fraction_of(rho, flat.numel())
    if kept == 0:
        return torch.zeros_like(weight)
    size = flat.abs().float()
    edge = torch.kthvalue(size, flat.numel() - kept + 1).values
    stays = size > edge
    ties = torch.nonzero(size == edge).reshape(-1)
    stays[ties[: kept - int(stays.sum())]] = True
    return torch.where(stays, flat, torch.zeros_like(flat)).view(weight.shape)


def pruned_as_laser(weight: Tensor, rho: float) -> Tensor:
    """`weight` [out, in] with as many entries set to zero as LASER's code sets, and which.

    All up to the absolute value at place floor((1 - rho) n) of the n entries in ascending order,
    counted from 0, are zeroed, and all that equal it: at least one entry more than that fraction.
    `rho` 1 changes nothing. Returns a new tensor of the same dtype.
    """
    import torch

    if rho == 1:
        return weight.clone()
    flat = weight.reshape(-1)
    place = fraction_of(1 - rho, flat.numel())
    if place >= flat.numel():
        return torch.zeros_like(weight)
    size = flat.abs().float()
    edge = torch.kthvalue(size, place + 1).values
    return torch.where(size > edge, flat, torch.zeros_like(flat)).view(weight.shape)
