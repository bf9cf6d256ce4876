"""The paper's analysis: the smallest singular values stay."""

from __future__ import annotations

from collections.abc import Sequence

from search.cuts.kinds.triples import TripleKind
from search.cuts.rules import RankRule


class KeepBottom(TripleKind):
    """What LASER takes away, alone: to see what the small singular values hold."""

    name = "keep-bottom"
    about = "keeps the smallest singular values (the paper's analysis)"

    def kept(
        self, rule: RankRule, shape: tuple[int, ...], spectrum: Sequence[float] | None = None
    ) -> range:
        """The last ones, as many as the rule says."""
        full = min(shape)
        return range(full - self.rank(rule, shape, spectrum), full)
