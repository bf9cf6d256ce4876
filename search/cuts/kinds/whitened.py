"""Truncation against the activations: what matters on real inputs stays."""

from __future__ import annotations

from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.kinds.triples import LeadingTriples


class Whitened(LeadingTriples):
    """The best approximation of its rank under E‖(W − W_r) x‖² for the inputs x of the matrix.

    With C = E[x xᵀ] it is the truncated SVD of W C^½, times C^-½ (Wang et al. 2024, SVD-LLM, with
    eigenvectors instead of Cholesky's factor). Its rules count ranks: the spectrum is that of
    W C^½, of which no law of noise in weights says anything.
    """

    name = "whitened"
    about = "keeps what matters most on calibration texts (the best low rank for real inputs)"
    rules = ("rho", "rank")
    needs_inputs = True

    def factoring_on(self, inputs: Inputs | None) -> Factoring | None:
        """By the second moment of the inputs, whose digest is in the name."""
        if inputs is None:
            return super().factoring_on(inputs)
        return inputs.whitening()
