"""What singular values say: how much of a matrix few directions hold, and how much is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.cuts.rules import THRESHOLDS, noise_level, threshold

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """All singular values [k] of one [out, in] matrix, k = min(out, in), descending, float64.

    `name` is the matrix's address, `module` the module that holds it, where it is known, and
    `model` what the matrix is from.
    """

    name: str
    model: str
    module: str
    shape: tuple[int, int]
    values: Array

    @property
    def energy(self) -> Array:
        """[k + 1]: the fraction of ‖W‖² that the best rank-r matrix holds, r = 0 ... k."""
        squares = np.concatenate([[0.0], np.cumsum(self.values**2)])
        return squares / squares[-1] if squares[-1] > 0 else np.ones_like(squares)

    @property
    def error(self) -> Array:
        """[k + 1]: ‖W − W_r‖ in the Frobenius norm, r = 0 ... k (Eckart and Young 1936)."""
        tail = np.concatenate([np.cumsum(self.values[::-1] ** 2)[::-1], [0.0]])
        found: Array = np.sqrt(tail)
        return found

    @property
    def numerical_rank(self) -> int:
        """Singular values that are no rounding of zero: above σ₁ · max(out, in) · 2⁻²³.

        NumPy's rule for weights in float32. A matrix that was cut to rank r has r of them, unless
        it was rounded to fewer bits afterwards.
        """
        floor = float(self.values[0]) * max(self.shape) * float(np.finfo(np.float32).eps)
        return int((self.values > floor).sum())

    @property
    def effective_rank(self) -> float:
        """The exp of the entropy of σ / Σσ (Roy and Vetterli 2007); 0 for the zero matrix."""
        total = self.values.sum()
        if total <= 0:
            return 0.0
        share = self.values[self.values > 0] / total
        return float(np.exp(-(share * np.log(share)).sum()))

    @property
    def stable_rank(self) -> float:
        """‖W‖² in the Frobenius norm over that in the spectral norm; 0 for the zero matrix."""
        top = float(self.values[0])
        return float((self.values**2).sum()) / top**2 if top > 0 else 0.0

    @property
    def noise(self) -> float:
        """Standard deviation of the entries of noise with this median singular value."""
        return noise_level(self.values, self.shape)

    def threshold(self, rule: str) -> float:
        """The threshold of one of `THRESHOLDS`."""
        return threshold(rule, self.values, self.shape)

    def kept(self, rule: str) -> int:
        """Singular values above the threshold of a rule; 0 is possible."""
        return int((self.values > self.threshold(rule)).sum())

    def signal_to_noise(self, rule: str = "laser-rmt") -> float:
        """Σ of the values above the threshold over Σ of the others; infinite without others.

        What laserRMT's search scripts sort by. 0 for the zero matrix.
        """
        above = self.values > self.threshold(rule)
        rest = float(self.values[~above].sum())
        if rest > 0:
            return float(self.values[above].sum()) / rest
        return math.inf if self.values[0] > 0 else 0.0

    @property
    def scanner_snr(self) -> float:
        """`signal_to_noise` over the largest value; 0 for the zero matrix.

        What the scanners of laserRMT and spectrum publish as ``snr``. It depends on the scale of
        the matrix.
        """
        top = float(self.values[0])
        return self.signal_to_noise() / top if top > 0 else 0.0

    def bulk(self, at: Array) -> Array:
        """Density of the Marchenko-Pastur law at singular values `at`, for noise of this level.

        x = σ²/(n s²) has density √((b − x)(x − a)) / (2πβx) on [a, b] = (1 ∓ √β)², β = m/n.
        """
        n, ratio = max(self.shape), min(self.shape) / max(self.shape)
        scale = n * self.noise**2
        if scale <= 0:
            return np.zeros_like(at)
        low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
        x = np.maximum(at**2 / scale, 1e-300)
        density = np.sqrt(np.clip((high - x) * (x - low), 0, None)) / (2 * math.pi * ratio * x)
        found: Array = density * 2 * at / scale
        return found

    def facts(self) -> dict[str, object]:
        """One row of a table: names, shape, ranks, thresholds, and the values themselves."""
        row: dict[str, object] = {
            "matrix": self.name,
            "model": self.model,
            "module": self.module,
            "out": self.shape[0],
            "in": self.shape[1],
            "largest": float(self.values[0]),
            "frobenius": float(self.error[0]),
            "numerical_rank": self.numerical_rank,
            "effective_rank": self.effective_rank,
            "stable_rank": self.stable_rank,
            "noise": self.noise,
            "signal_to_noise": self.signal_to_noise(),
            "scanner_snr": self.scanner_snr,
        }
        for rule in THRESHOLDS:
            row[f"{rule}_threshold"] = self.threshold(rule)
            row[f"{rule}_rank"] = self.kept(rule)
        return row | {"spectrum": self.values.tolist()}


def cosines(values: Array, coordinates: Array) -> Array:
    """[k]: mean cosine between W x and W_r x, r = 1 ... k, over inputs x.

    `values` [k] are the singular values and `coordinates` [inputs, k] the inputs in the right
    singular vectors, Vᵀx. W_r x is the projection of W x on the first r left vectors, so the cosine
    is ‖W_r x‖ / ‖W x‖. Inputs that W maps to zero are left out.
    """
    parts = np.cumsum((coordinates * values) ** 2, axis=1)
    whole = parts[:, -1]
    parts = parts[whole > 0] / whole[whole > 0, None]
    if not len(parts):
        return np.ones_like(values)
    found: Array = np.sqrt(parts).mean(axis=0)
    return found


def random_cosines(values: Array, inputs: int = 64, seed: int = 0) -> Array:
    """`cosines` for Gaussian inputs, whose coordinates are Gaussian in any orthonormal basis."""
    draws = np.random.default_rng(seed).standard_normal((inputs, len(values)))
    return cosines(values, draws)
