"""The edited model as a folder that plain transformers loads."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.composition import Composition
from search.durable import write_json, write_text
from search.export.card import model_card
from search.model import own_device
from search.space import Space
from search.strategies.replayable import is_duplicate
from search.study.identity import digest_weights
from search.study.record import StudyRecord
from search.weights.edit import Editor
from search.weights.matrices import find_matrices
from search.weights.remote import open_factors
from tasks.errors import InputError


def choose_trial(record: StudyRecord, number: int | None) -> FrozenTrial:
    """The trial to export: by `number`, else the winner. Raises InputError if there is none."""
    if number is None:
        winner = record.summary.winner
        if winner is None:
            raise InputError(
                f"{record.folder} has no trial that beats the baseline on validation; "
                "name one with --trial or search on"
            )
        return winner
    if not 0 <= number < len(record.trials):
        raise InputError(
            f"trial {number} does not exist in {record.folder}; "
            f"it has 0 to {len(record.trials) - 1}"
        )
    trial = record.trials[number]
    if trial.state != TrialState.COMPLETE:
        raise InputError(f"trial {number} is {trial.state.name}, not COMPLETE; choose another")
    if is_duplicate(trial):
        original = trial.user_attrs["duplicate_of"]
        raise InputError(f"trial {number} repeats trial {original}; export that one")
    return trial


def export_dense(record: StudyRecord, trial: FrozenTrial, out: Path) -> Path:
    """Write model, tokenizer, interventions.json and README.md to `out`, whole or not at all.

    Weights keep the dtype that the study evaluated them in; only edited matrices differ from the
    base. Raises InputError if `out` is not empty, or the base model is not the one searched.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; give a new folder")
    source = record.config.model.source()
    # Where the trials' products were computed, so that the exported bytes are theirs.
    model: Any = source.load(own_device())
    matrices = find_matrices(model)
    space = Space.build(record.config.space, matrices)
    editor = Editor(model, matrices, open_factors(record.config.factors))
    keys = editor.keys(space.matrices)
    if digest_weights({str(ref): key for ref, key in keys.items()}) != record.identity.weights:
        raise InputError(
            f"the weights of {source.path} are not those that the study searched; restore them"
        )
    composition = Composition.parse(trial.user_attrs["composition"].split())
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
    try:
        editor.apply(composition)
        model.to("cpu").save_pretrained(partial)
        source.tokenizer().save_pretrained(partial)
        write_json(partial / "interventions.json", _facts(record, trial, composition))
        write_text(partial / "README.md", model_card(record, trial))
        _open_to_readers(partial)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _facts(record: StudyRecord, trial: FrozenTrial, composition: Composition) -> dict[str, Any]:
    model = record.config.model
    return {
        "base_model": model.path,
        "revision": model.revision,
        "composition": json.loads(composition.to_json()),
        "digest": composition.digest,
        "effect": trial.user_attrs["effect"],
        "study": record.identity.study_id,
        "trial": trial.number,
        "validation_score": trial.value,
        "weights": record.identity.weights,
        "versions": record.identity.versions,
    }


def _open_to_readers(folder: Path) -> None:
    """Give files the usual permissions: some writers make them private to their owner."""
    mode = (folder / "interventions.json").stat().st_mode
    for path in folder.iterdir():
        path.chmod(mode)
