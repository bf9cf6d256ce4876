"""Compositions to begin with: given as text, or the best of another study's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.weights.matrices import Matrix
from search.weights.selection import read_composition
from tasks.errors import InputError

TAKEN = 10
"""Best trials that are taken of another study."""


def resolve(
    items: Sequence[str], matrices: Sequence[Matrix], space: Sequence[MatrixRef]
) -> tuple[Composition, ...]:
    """What `search.warm_start` means for a model with `matrices`, of which `space` may be cut.

    An item is a composition as ``evaluate`` takes it (``27.fc_in=0.01 26.mlp=0.1``), or the folder
    of a study, perhaps of another task or model: of its best trials those cuts whose address this
    space has too. Raises InputError.
    """
    found: list[Composition] = []
    for item in items:
        if "=" in item and not Path(item).is_dir():
            found.append(_given(item, matrices, space))
        else:
            found += _best_of(Path(item), space)
    return tuple(dict.fromkeys(found))


def _given(item: str, matrices: Sequence[Matrix], space: Sequence[MatrixRef]) -> Composition:
    composition = read_composition(item.split(), matrices)
    for i in composition.interventions:
        if i.matrix not in space:
            raise InputError(
                f"search.warm_start cuts {i.matrix}, which is not in the search space; "
                "add its layer and type to space"
            )
    return composition


def _best_of(folder: Path, space: Sequence[MatrixRef]) -> list[Composition]:
    from search.study.study_record import StudyRecord

    if not folder.is_dir():
        raise InputError(
            f"search.warm_start names {str(folder)!r}, which is neither a composition such as "
            "'27.fc_in=0.01' nor the folder of a study"
        )
    trials = [trial for trial in StudyRecord.read(folder).trials if trial.counts]
    found = []
    for trial in sorted(trials, key=lambda trial: trial.merit, reverse=True)[:TAKEN]:
        kept = tuple(i for i in trial.composition.interventions if i.matrix in space)
        if kept:
            found.append(Composition(kept))
    if not found:
        raise InputError(
            f"search.warm_start names {folder}, no trial of which cuts a matrix of this space"
        )
    return found
