"""Interventions as a caller has them: texts, a composition, a file, a study."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

from search.cuts.composition import Composition
from search.export.intervention_file import spelled_out
from search.results import Study

Interventions: TypeAlias = "str | os.PathLike[str] | Iterable[str] | Composition | Study"
"""Texts such as ``27.fc_in=0.01`` or ``*.attn=rank:384``; a file of them; what a study found."""


def intervention_texts(interventions: Interventions) -> list[str]:
    """The interventions as texts. Raises InputError if a file holds none."""
    if isinstance(interventions, Study):
        interventions = interventions.composition
    if isinstance(interventions, Composition):
        return [str(one) for one in interventions.interventions]
    if isinstance(interventions, str | os.PathLike):
        interventions = [os.fspath(interventions)]
    return spelled_out(list(interventions))
