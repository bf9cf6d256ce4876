"""Exact singular value decompositions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from tasks.errors import InputError

GRAM_CONDITION = 1e-4
"""Smallest singular value, as a fraction of the largest, that is taken from a Gram matrix."""

COLUMNS = 64
"""Whose signs are found at once."""

TAIL_OVERLAP = 3e-8
"""Largest cosine between right vectors of the Gram route's two parts; the rounding's is 6e-8."""


class Decomposition(NamedTuple):
    """W = U diag(S) Vᵀ: U [out, k], S [k] descending, V [in, k], all of one dtype and device."""

    U: Tensor
    S: Tensor
    V: Tensor


def work_of(shape: Sequence[int]) -> float:
    """What the SVD of a matrix [out, in] takes, in proportion: min(out, in)² max(out, in)."""
    return float(min(shape) ** 2 * max(shape))


def decompose(weight: Tensor) -> Decomposition:
    """Singular values and vectors of `weight` [out, in], any float dtype, unchanged.

    All k = min(out, in) of them, computed in float64 and rounded to float32 at the end.
    Vectors of zero singular values are orthonormal too. Measured against a float64 SVD: singular
    values within 1e-7 of the largest, ‖W − U S Vᵀ‖ within 1e-6 ‖W‖, all vectors orthonormal within
    1e-6. The sign of each pair makes the largest entry of its U positive, so one machine gives the
    same bytes for the same weight.

    Raises InputError if a value is not finite or the iteration diverges.
    """
    home = weight.device
    parts = decompose_wide(widened(weight))
    return Decomposition(*(part.to(home, torch.float32) for part in parts))


def decompose_wide(wide: Tensor) -> Decomposition:
    """As `decompose`, of a finite float64 matrix [out, in], with all of float64 in the result."""
    U, S, V = _gram(wide) or _dense(wide)
    U, V = _signed(U, V)
    return Decomposition(U, S, V)


def widened(weight: Tensor) -> Tensor:
    """The matrix in float64, on its device; detached. Raises InputError unless it is finite."""
    weight = checked(weight)
    # Some accelerators have no float64; the factors are worth a copy to the host.
    return weight.to("cpu" if weight.device.type == "mps" else weight.device, torch.float64)


def checked(weight: Tensor) -> Tensor:
    """The matrix, detached. Raises InputError if a value is not finite."""
    if weight.ndim != 2:
        raise ValueError(f"a matrix [out, in] is expected, not shape {tuple(weight.shape)}")
    weight = weight.detach()
    if not bool(torch.isfinite(weight).all()):
        count = int((~torch.isfinite(weight)).sum())
        raise InputError(
            f"the matrix of shape {tuple(weight.shape)} contains {count} values that are not "
            "finite (NaN or infinity) and has no SVD; check the checkpoint or load it in a wider "
            "dtype"
        )
    return weight


Triple = tuple[Tensor, Tensor, Tensor]


def _gram(weight: Tensor) -> Triple | None:
    """By the eigenvectors of the smaller Gram matrix; None where that would lose accuracy.

    For W [m, n] with m <= n, W Wᵀ = U Λ Uᵀ, σ = √λ, V = Wᵀ U / σ. In float64 the eigenvalues are
    exact to ε σ₁², so the vectors of σ are orthonormal to about ε (σ₁/σ)²: 1e-8 at σ₁/σ = 1e4,
    below the 6e-8 of the final rounding. Below that the few remaining rows Uᵀ W are decomposed by
    themselves, where nothing is squared. Several times faster than gesdd on the whole.
    """
    tall = weight.shape[0] > weight.shape[1]
    wide = weight.T if tall else weight
    try:
        squares, left = torch.linalg.eigh(wide @ wide.T)
    except LinAlgError:
        return None
    squares, left = squares.flip(0), left.flip(1)
    head = int((squares > squares[0] * GRAM_CONDITION**2).sum()) if squares[0] > 0 else 0
    # With half of the vectors in the tail, splitting it off saves nothing.
    if 2 * head < len(squares):
        return None
    S = squares[:head].sqrt()
    right = (wide.T @ left[:, :head]).div_(S)
    if head < len(squares):
        tail = _tail(wide, left[:, head:], right)
        if tail is None:
            return None
        left = torch.cat([left[:, :head], tail[0]], 1)
        S, right = torch.cat([S, tail[1]]), torch.cat([right, tail[2]], 1)
        if bool((S.diff() > 0).any()):  # two values that the split tore apart
            S, order = S.sort(descending=True, stable=True)
            left, right = left[:, order], right[:, order]
    return (right, S, left) if tall else (left, S, right)


def _tail(wide: Tensor, left: Tensor, head: Tensor) -> Triple | None:
    """The singular triples of `wide` [m, n] whose left vectors span `left` [m, t].

    `head` [n, h] are the right vectors of the others. None if the new ones are not orthogonal to
    them, as happens to those of singular values that are zero.
    """
    rows = left.T @ wide
    rows = rows - (rows @ head) @ head.T
    U, S, V = _dense(rows)
    if bool((head.T @ V).abs().max() > TAIL_OVERLAP):
        return None
    return left @ U, S, V


def _dense(weight: Tensor) -> Triple:
    """LAPACK's gesdd in float64 (cuSOLVER's gesvd on a GPU), and gesvd where that diverges."""
    try:
        driver = "gesvd" if weight.is_cuda else None
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False, driver=driver)
    except LinAlgError:
        U, S, Vh = _last_resort(weight)
    return U, S, Vh.T


def _last_resort(weight: Tensor) -> Triple:
    import scipy.linalg

    try:
        parts = scipy.linalg.svd(
            weight.cpu().numpy(), full_matrices=False, lapack_driver="gesvd", check_finite=False
        )
    except scipy.linalg.LinAlgError as error:
        raise InputError(
            f"the SVD of the matrix of shape {tuple(weight.shape)} does not converge ({error}); "
            "leave this matrix out of the space"
        ) from None
    U, S, Vh = (torch.from_numpy(part).to(weight.device) for part in parts)
    return U, S, Vh


def _signed(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Flip each pair of columns so that the entry of U largest in absolute value is positive.

    In place, and by some columns at a time: copies of a large matrix would be the most that a
    decomposition holds.
    """
    for first in range(0, U.shape[1], COLUMNS):
        part = U[:, first : first + COLUMNS]
        place = part.abs().argmax(dim=0, keepdim=True)
        sign = torch.where(part.gather(0, place) < 0, -1.0, 1.0).to(U.dtype)
        part.mul_(sign)
        V[:, first : first + COLUMNS].mul_(sign)
    return U, V
