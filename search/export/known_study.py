"""A cut that is known as a study of one trial, for what needs the answers of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.config import parse_config
from search.export.intervention_file import spelled_out
from search.here import run_here
from search.model import ModelSource
from search.sections import TaskConfig
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from search.weights.matrices import all_matrices
from search.weights.selection import check_interventions, read_composition
from tasks.errors import InputError


def study_of_cut(
    folder: Path, source: ModelSource, interventions: Sequence[str], task: TaskConfig, factors: str
) -> tuple[StudyRecord, TrialRecord]:
    """Score `source` before and after `interventions` on `task`, as a study's trial 0 in `folder`.

    Nothing is searched: the one trial is what is named. Raises InputError.
    """
    texts = spelled_out(interventions)
    check_interventions(texts)
    composition = read_composition(texts, all_matrices(source.skeleton()))
    refs = [cut.matrix for cut in composition.interventions]
    if not refs:
        raise InputError(
            "there is nothing to cut; give a cut with --intervention, such as 1.fc_in=0.1"
        )
    config = parse_config(
        {
            "model": {"path": str(source.folder), "head": source.head, "dtype": source.dtype},
            "task": task.model_dump(),
            "space": {
                "layers": sorted({ref.layer for ref in refs if not ref.is_outside}) or "all",
                "matrices": sorted({ref.type for ref in refs}),
                "max_interventions": len(refs),
            },
            "search": {"strategy": "random", "trials": 1, "warm_start": [str(composition)]},
            "factors": factors,
        },
        "the cut",
    )
    run_here(config, folder)
    record = StudyRecord.read(folder)
    trial = record.trials[0]
    if not trial.complete:
        raise InputError(f"{composition} could not be scored: {trial.reason}; cut less")
    return record, trial
