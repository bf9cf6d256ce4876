"""Truncation against what a matrix is given: factors whose leading triples keep its outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from search.cuts.kinds.base import Factoring
from search.weights.svd import Decomposition, decompose_wide, widened
from tasks.errors import InputError

VERSION = 1
"""Of what this module computes; a change that moves a result by a bit needs a new one."""

FLOOR = 1e-10
"""Smallest eigenvalue of a second moment, as a fraction of their mean tr(C)/n. A direction that no
calibration token reached counts as one of 1e-5 of the mean size, so that all of W is there at full
rank; no root of an eigenvalue is less than 1e-5/√n of the largest, far above float64's rounding."""


def floored_root(moment: Tensor) -> Tensor:
    """R [in, in] with R Rᵀ = C, whose eigenvalues below FLOOR of their mean are raised to it.

    `moment` C = E[x xᵀ] [in, in], float64, symmetric. By its eigenvectors, C = Q Λ Qᵀ and
    R = Q √Λ: a Cholesky factor does not exist for moments of fewer tokens than inputs, nor for
    inputs that are always zero or always alike. Of C = 0, no token at all, R is the identity.
    Raises InputError unless every value is finite.
    """
    if not bool(torch.isfinite(moment).all()):
        raise InputError(
            "the second moment of a matrix's inputs contains values that are not finite; the model "
            "overflows on the calibration data, so load it in a wider dtype"
        )
    values, vectors = _eigen(moment)
    floor = FLOOR * float(values.clamp(min=0).mean())
    if floor == 0:
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return vectors * values.clamp(min=floor).sqrt()


def whiten(weight: Tensor, root: Tensor) -> Decomposition:
    """U [out, k], S [k], V [in, k], float64, with U diag(S) Vᵀ = W and k = min(out, in).

    `weight` W [out, in], any float dtype; `root` R [in, in], see `floored_root`. With W R = P Σ Qᵀ
    the best matrix of rank r under E‖(W − W_r) x‖² is P_r Σ_r Q_rᵀ R⁻¹ (Eckart and Young on W R),
    and the error is the sum of the squares of the rest of Σ. U = P has orthonormal columns, S = Σ;
    V = R⁻ᵀ Q is computed as Wᵀ P Σ⁻¹, which is the same without an inverse: each triple is
    P_i (Wᵀ P_i)ᵀ, no larger than W, however small the eigenvalues of C are.
    Raises InputError if a value of W is not finite.
    """
    wide = widened(weight)
    U, S, _ = decompose_wide(wide @ root.to(wide.device))
    # Below rounding Wᵀ P is rounding too: that W has no more ranks, and their triples are zero.
    real = torch.finfo(S.dtype).eps * max(wide.shape) * S[:1] < S
    V = torch.where(real, (wide.T @ U) / torch.where(real, S, 1.0), 0.0)
    return Decomposition(U, S, V)


def whitening(digest: str, read: Callable[[], Tensor]) -> Factoring:
    """The factoring by the second moment that `read` gives and that has this digest.

    Its factors are those of `whiten`, rounded to float32.
    """
    return Factoring(f"whitened-{VERSION}:{FLOOR:g}:{digest}", partial(_factors, read))


def _factors(read: Callable[[], Tensor], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    home = weight.device
    moment = read().to("cpu" if home.type == "mps" else home)
    U, S, V = (part.to(home, torch.float32) for part in whiten(weight, floored_root(moment)))
    return U, S, V


def _eigen(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [in], ascending, and eigenvectors in the columns of [in, in]."""
    try:
        values, vectors = torch.linalg.eigh(moment)
    except LinAlgError:
        import scipy.linalg

        parts = scipy.linalg.eigh(moment.cpu().numpy(), driver="ev")
        values, vectors = (torch.from_numpy(part).to(moment.device) for part in parts)
    return values, vectors
