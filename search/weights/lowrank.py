"""LASER's own low rank in the place of the exact one: which kind of cut that is for a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search.composition import Composition, Intervention

TWENTY = ("roberta", "decision_transformer")
"""Model types for which LASER's code takes 20 power iterations; for all others it takes 2."""


def lowrank_kind(model: Any) -> str:
    """The kind of cut that LASER's code makes in `model`, by its configuration's model type."""
    kind = getattr(getattr(model, "config", None), "model_type", "")
    return "svd-lowrank-20" if kind in TWENTY else "svd-lowrank"


def as_laser_cuts(composition: Composition, model: Any) -> Composition:
    """The same cuts as LASER's code makes them: its own low rank, its own pruning.

    Raises InputError where a rule reads the spectrum, which its code does not.
    """
    kinds = {"keep-top": lowrank_kind(model), "prune": "prune-paper"}
    return Composition(tuple(_as(cut, kinds) for cut in composition.interventions))


def _as(cut: Intervention, kinds: dict[str, str]) -> Intervention:
    return replace(cut, kind=kinds.get(cut.kind, cut.kind))
