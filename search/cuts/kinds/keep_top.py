"""LASER itself: the largest singular values stay (Sharma, Ash and Misra 2024)."""

from __future__ import annotations

from search.cuts.kinds.triples import LeadingTriples

TWENTY = ("roberta", "decision_transformer")
"""Model types for which LASER's code takes 20 power iterations; for all others it takes 2."""


class KeepTop(LeadingTriples):
    """The best approximation of its rank in the Frobenius norm (Eckart and Young 1936)."""

    name = "keep-top"
    about = "keeps the largest singular values (LASER)"

    def as_laser(self, model_type: str) -> str:
        """LASER's code has a randomised low rank in its place."""
        return "svd-lowrank-20" if model_type in TWENTY else "svd-lowrank"
