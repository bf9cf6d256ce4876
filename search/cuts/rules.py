"""Rank rules: from a fraction, a count or a spectrum to the number of singular values kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tasks.errors import InputError, nearest

THRESHOLDS = ("marchenko-pastur", "laser-rmt", "gavish-donoho")
"""Rules that keep the singular values above a threshold; their value multiplies it (default 1)."""

SPECTRAL = ("energy", *THRESHOLDS)
"""Rules that need the matrix's singular values."""

RULES = ("rho", "rank", *SPECTRAL)


def fraction_of(rho: float, whole: int) -> int:
    """floor(rho * whole) with a tolerance against binary rounding; at least 1 for rho > 0."""
    if rho == 0:
        return 0
    exact = rho * whole
    return min(whole, max(1, math.floor(exact + 1e-9 * max(1.0, exact))))


def number_text(value: float) -> str:
    """The shortest text that reads back as exactly `value`."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True, slots=True)
class RankRule:
    """How many singular values stay: `name` is one of RULES, `value` its parameter.

    ``rho``: fraction kept of the maximum rank, in [0, 1] (LASER, Sharma et al. 2024, eq. 1).
    ``rank``: a count, at least 0.
    ``energy``: smallest r with σ₁² + … + σᵣ² >= value · Σ σᵢ², the fraction of the squared
    Frobenius norm, in [0, 1] (Eckart and Young 1936: the rest is the error of the best rank r).

    The others keep each σᵢ > value · t for an [out, in] matrix with n = max, m = min, β = m/n:

    ``marchenko-pastur``: t = s (√n + √m), the largest singular value of noise with entries of
    standard deviation s, which is read off the median: s = median(σ) / √(n μ_β), where μ_β is the
    median of the Marchenko-Pastur law of ratio β (Marchenko and Pastur 1967; the estimate of s is
    Gavish and Donoho's).
    ``laser-rmt``: t = (Q75 − Q25)/1.349 · (1 + √β), quartiles of σ, as the laserRMT project
    computes it; without √n it is no edge of noise.
    ``gavish-donoho``: t = λ(β)/√μ_β · median(σ), λ(β) = √(2(β+1) + 8β/(β+1+√(β²+14β+1))), the
    optimal hard threshold at unknown noise level (Gavish and Donoho 2014, eq. 5 and 11).
    """

    name: str
    value: float

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.name not in RULES:
            raise InputError(
                f"rank rule {self.name!r} does not exist; expected one of {', '.join(RULES)}"
                + nearest(self.name, RULES)
            )
        value = self.value
        if self.name == "rho" and not 0 <= value <= 1:
            raise InputError(f"rho {value} is outside [0, 1]; it is the fraction of rank kept")
        if self.name == "rank" and not (value >= 0 and float(value).is_integer()):
            raise InputError(f"rank {value} is not a count; give a whole number of at least 0")
        if self.name == "energy" and not 0 <= value <= 1:
            raise InputError(f"energy {value} is outside [0, 1]; it is the fraction of σ² kept")
        if self.name in THRESHOLDS and not 0 < value < math.inf:
            raise InputError(
                f"{self.name} {value} is not a multiple of its threshold; give a number above 0, "
                "such as 1"
            )

    def __str__(self) -> str:
        """Text that `parse` reads back: ``0.1``, ``rank:3``, ``energy:0.9``."""
        prefix = "" if self.name == "rho" else f"{self.name}:"
        return prefix + number_text(self.value)

    @staticmethod
    def parse(text: str) -> RankRule:
        """Read ``RHO`` or ``RULE:VALUE``; a threshold may leave its value out (1).

        Raises ValueError if the value is no number, InputError if it or the rule means nothing.
        """
        if text in THRESHOLDS:
            return RankRule(text, 1.0)
        name, colon, number = text.partition(":")
        return RankRule(name, float(number)) if colon else RankRule("rho", float(text))

    @property
    def mildness(self) -> float:
        """Orders the values of one rule: of a larger one more singular values stay, or as many."""
        return -self.value if self.name in THRESHOLDS else self.value

    @property
    def needs_spectrum(self) -> bool:
        """Whether `rank` needs the singular values."""
        return self.name in SPECTRAL

    def rank(
        self,
        max_rank: int,
        spectrum: Sequence[float] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> int:
        """Singular values kept of `max_rank` = min(out, in).

        For rho: floor(rho * max_rank) with a tolerance against binary rounding, so that 0.29 of 100
        is 29. Every rule keeps at least 1, save rho, rank or energy 0: only they are the zero
        matrix. `spectrum` is all singular values, descending, `shape` (out, in); spectral rules
        need them and raise ValueError without.
        """
        if self.name == "rank":
            return min(int(self.value), max_rank)
        if self.name == "rho":
            return fraction_of(self.value, max_rank)
        if spectrum is None or (self.name != "energy" and shape is None):
            raise ValueError(f"rank rule {self.name} needs the matrix's spectrum and shape")
        values = np.asarray(spectrum, dtype=np.float64)
        if self.name == "energy":
            return _by_energy(values, self.value)
        edge = threshold(self.name, values, shape or (0, 0))
        return max(1, int((values > self.value * edge).sum()))


def threshold(rule: str, spectrum: np.ndarray, shape: tuple[int, int]) -> float:
    """The threshold t of one of THRESHOLDS for singular values of an [out, in] matrix."""
    edge = {
        "marchenko-pastur": _marchenko_pastur,
        "laser-rmt": _laser_rmt,
        "gavish-donoho": _gavish_donoho,
    }[rule]
    return edge(np.asarray(spectrum, dtype=np.float64), min(shape) / max(shape))


def noise_level(spectrum: np.ndarray, shape: tuple[int, int]) -> float:
    """Standard deviation of the entries of noise whose singular values have this median.

    s = median(σ) / √(n μ_β), as in the rule ``marchenko-pastur``; the signal, if it is of low rank,
    hardly moves the median.
    """
    ratio, n = min(shape) / max(shape), max(shape)
    return float(np.median(spectrum)) / math.sqrt(n * _median_law(ratio))


def _by_energy(values: np.ndarray, fraction: float) -> int:
    if fraction == 0:
        return 0
    energy = np.cumsum(values**2)
    # The tolerance keeps fraction 1 of an exactly low-rank matrix from counting rounding errors.
    wanted = fraction * energy[-1] * (1 - 1e-12)
    return max(1, min(len(values), int(np.searchsorted(energy, wanted)) + 1))


def _marchenko_pastur(values: np.ndarray, ratio: float) -> float:
    # s (√n + √m) with s = median / √(n μ): √n cancels.
    return float(np.median(values)) * (1 + math.sqrt(ratio)) / math.sqrt(_median_law(ratio))


def _laser_rmt(values: np.ndarray, ratio: float) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / 1.349 * (1 + math.sqrt(ratio))


def _gavish_donoho(values: np.ndarray, ratio: float) -> float:
    root = math.sqrt(ratio * ratio + 14 * ratio + 1)
    optimal = math.sqrt(2 * (ratio + 1) + 8 * ratio / (ratio + 1 + root))
    return float(np.median(values)) * optimal / math.sqrt(_median_law(ratio))


@cache
def _median_law(ratio: float) -> float:
    """Median μ of the Marchenko-Pastur law of ratio β <= 1 and unit variance.

    Density √((b − x)(x − a)) / (2πβx) on [a, b] = (1 ∓ √β)²; integrated over an angle, in which it
    is smooth: x = (a + b)/2 − (b − a)/2 · cos θ.
    """
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    angle = (np.arange(20_000) + 0.5) * math.pi / 20_000
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    mass = np.cumsum((np.sin(angle) * (high - low) / 2) ** 2 / x)
    return float(np.interp(mass[-1] / 2, mass, x))
