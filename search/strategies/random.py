"""Uniform draws: the baseline that every other strategy has to beat."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler


def make(seed: int) -> BaseSampler:
    """Independent uniform draws of every parameter."""
    return RandomSampler(seed=seed)
