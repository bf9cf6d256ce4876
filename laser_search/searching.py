"""Run a study from Python, in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.view import StudyView
from laser_search.given_model import Model, model_path
from laser_search.given_questions import Questions, questions_path
from laser_search.progress import reporting_here
from search.config import StudyConfig, parse_config
from search.here import run_here
from search.locations import absolute_location
from search.place import check_study_place
from search.report.live import plain
from search.results import Study
from search.study.identity import FILE as IDENTITY_FILE


def search(
    model: Model,
    questions: Questions = None,
    *,
    tokenizer: Any = None,
    task: str = "jsonl",
    folder: str | os.PathLike[str] = "laser-study",
    trials: int = 200,
    strategy: str = "auto",
    matrices: Sequence[str] = ("fc_in", "fc_out"),
    max_interventions: int = 3,
    validation: float = 0.2,
    seed: int = 0,
    factors: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Study:
    """Search for cuts with which `model` answers `questions` better, in this process.

    The search sees the `validation` fraction of the questions; the rest is test, which is scored
    once at the end, for the unedited model and the best composition. `study.verdict` is the result.

    Args:
        model: A local folder, a hub id, or a loaded transformers model with its `tokenizer`. A
            loaded model is saved into the study folder (`folder`/model, in safetensors) and read
            from there, because a study identifies its weights by the bytes of files. The object
            itself is not changed.
        questions: A list of dicts, a pandas frame, a `datasets.Dataset` or a file, with the fields
            of the task: for ``jsonl`` prompt and answer, optionally choices and group, or text and
            label. Rows are written to `folder`/questions.jsonl. None: the task's own data.
        tokenizer: The tokenizer of a loaded model.
        task: The task's name; `laser-search tasks` lists them.
        folder: The study folder. If it already contains this study, the study continues, so an
            interrupted call or cell can simply be run again.
        trials: How many compositions are evaluated; a larger number continues a finished study.
        strategy: How the next composition is chosen (docs/strategies.md).
        matrices: Matrix types or groups that may be cut.
        max_interventions: The maximum number of cuts per composition.
        validation: The fraction of the questions that the search sees.
        seed: The seed of the split and of the search.
        factors: The factor cache, shared by studies; by default `folder`/factors.
        settings: Further keys of study.yaml (docs/configuration.md), such as
            ``{"space": {"rho": [0.1, 0.01]}, "model": {"dtype": "bfloat16"}}``; they override the
            arguments.
        progress: Show progress, in a notebook cell or on a terminal.

    Returns:
        The study: data frames, figures, verdict and report, read from its folder.

    Raises:
        InputError: On bad input, in one sentence; or if the folder contains another study.
    """
    place = Path(folder).expanduser()
    if not (place / IDENTITY_FILE).exists():
        check_study_place(place)
    given: dict[str, Any] = {
        "model": {"path": model_path(model, tokenizer, place)},
        "task": {"name": task, "data": questions_path(questions, place)},
        "split": {"validation": validation, "seed": seed},
        "space": {"matrices": list(matrices), "max_interventions": max_interventions},
        "search": {"strategy": strategy, "trials": trials, "seed": seed},
        "factors": absolute_location(place / "factors" if factors is None else factors),
    }
    config: StudyConfig = parse_config(_merged(given, settings or {}), "laser_search.search")
    with reporting_here(quiet=not progress) as phases:
        run_here(config, place, phases, StudyView(phases, loaded=True).look)
        study = Study.open(place)
        phases.note(plain(study.summary))
    return study


def _merged(given: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the keys of `further` in their place, mapping by mapping."""
    found = dict(given)
    for key, value in further.items():
        own = found.get(key)
        both = isinstance(own, Mapping) and isinstance(value, Mapping)
        found[key] = _merged(own, value) if both else value  # type: ignore[arg-type]
    return found
