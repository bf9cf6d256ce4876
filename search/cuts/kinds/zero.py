"""The matrix removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.cuts.kinds.base import Kind, Source
from search.cuts.rules import RankRule

if TYPE_CHECKING:
    from torch import Tensor


class Zero(Kind):
    """Nothing stays; it takes no value."""

    name = "zero"
    about = "keeps nothing: the zero matrix"
    fixed = RankRule("rho", 0.0)

    def kept(
        self, rule: RankRule, shape: tuple[int, ...], spectrum: Sequence[float] | None = None
    ) -> range:
        """None of the triples."""
        return range(0)

    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """Zeros [out, in]."""
        import torch

        return torch.zeros_like(original)
