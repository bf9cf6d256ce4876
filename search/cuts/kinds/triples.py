"""Kinds that keep some of the triples σᵢ uᵢ vᵢᵀ of a matrix's factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.cuts.kinds.base import Gradient, Kind, Source, spectrum_for
from search.cuts.rules import RankRule

if TYPE_CHECKING:
    from torch import Tensor


def reach(kept: range, max_rank: int) -> tuple[int, int]:
    """(ranks to read at once, ranks that must be there) for a product of `kept` triples.

    Up to half of the ranks are multiplied; of more, the rest is taken from the matrix itself.
    """
    short = kept.start == 0 and 2 * len(kept) <= max_rank
    return (kept.stop, kept.stop) if short else (0, max_rank)


class TripleKind(Kind):
    """A kind whose edit is a sum of triples; it only says which are kept, in `kept`."""

    needs_factors = True

    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """The sum of the triples kept [out, in], float32; the original itself where all are."""
        import torch

        shape, max_rank = tuple(original.shape), min(original.shape)
        kept = self.kept(rule, shape, spectrum_for([rule], source))
        if kept is None:
            raise TypeError(f"kind {self.name!r} does not say which triples it keeps")
        if len(kept) == max_rank:
            return original
        if not kept:
            return torch.zeros_like(original)
        factors = source.factors(*reach(kept, max_rank))
        return factors.span(kept.start, kept.stop, original, original.device)


class LeadingTriples(TripleKind):
    """A kind that keeps the first triples of its factors: the class for a new one to start from.

    A subclass with a `factoring` of its own is kept, read, shared, multiplied, screened and
    exported as LASER's cuts are.
    """

    def kept(
        self, rule: RankRule, shape: tuple[int, ...], spectrum: Sequence[float] | None = None
    ) -> range:
        """The first ones, as many as the rule says."""
        return range(self.rank(rule, shape, spectrum))

    def first_order(
        self, rules: Sequence[RankRule], weight: Tensor, gradient: Gradient, source: Source
    ) -> Tensor:
        """⟨G, W_r − W⟩ = Σ_{i<=r} σᵢ uᵢᵀ G vᵢ − ⟨G, W⟩: one pass over the triples serves all r.

        Where all triples have to be there, they add up to the matrix.
        """
        import torch

        shape, full = tuple(weight.shape), min(weight.shape)
        spectrum = spectrum_for(rules, source)
        ranks = [self.rank(rule, shape, spectrum) for rule in rules]
        read = reach(range(max(ranks)), full)[1]
        factors = source.factors(read, read)
        U, V = (part[:read].to(gradient.device) for part in (factors.U, factors.V))
        by_triple = gradient.along(U, V).cpu().double() * factors.spectrum[:read].double()
        kept = torch.cat([torch.zeros(1, dtype=torch.float64), by_triple.cumsum(0)])
        whole = kept[-1] if read == full else gradient.inner(weight).cpu()
        return (kept - whole)[ranks]
