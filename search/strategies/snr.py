"""laserRMT as published: the matrices of lowest signal-to-noise ratio, one by one, keep or revert.

The ratio is Σσ above a threshold over Σσ below it, undivided, as the project's search scripts sort
by it. Its scanners, which choose layers to train, divide that by the largest σ: another quantity
and another order. A matrix is cut to its singular values above the threshold; the cut stays if the
model is no worse. The threshold is the project's own (``laser-rmt``) or the true edge of the
Marchenko-Pastur law, for which it is meant (``marchenko-pastur``); see `search.cuts.rules`.
"""

from __future__ import annotations

from search.cuts.composition import Composition, Intervention
from search.cuts.level import PLAIN, Level
from search.cuts.rules import RankRule
from search.strategies.base import History, Setting, Strategy
from search.strategies.keep_or_revert import KeepOrRevert, is_no_worse

LOWEST = 15
"""Matrices that laserRMT tries."""


class SignalToNoise(Strategy):
    """The 15 matrices of lowest signal-to-noise ratio in ascending order, keep or revert."""

    name = "snr"
    wants_spectra = True

    def __init__(self, setting: Setting) -> None:
        """Over the matrices of the setting's space, whose spectra must be known."""
        spectra, rule = setting.spectra, setting.threshold
        if spectra is None:
            raise ValueError("strategy snr needs the spectra of the matrices")
        order = sorted(setting.space.matrices, key=lambda ref: spectra[ref].signal_to_noise(rule))
        level = setting.space.levels[0]
        kind = level.kind if "rank" in level.made_by.rules else PLAIN
        steps = []
        for ref in order[:LOWEST]:
            rank = max(1, spectra[ref].kept(rule))
            if rank < setting.max_ranks[ref]:
                steps.append((Intervention(ref, Level(RankRule("rank", rank), kind)),))
        self._walk = KeepOrRevert(steps, len(steps), is_no_worse)

    def suggest(self, history: History) -> Composition | None:
        """The next matrix on top of the cuts that were kept."""
        return self._walk.next(history)
