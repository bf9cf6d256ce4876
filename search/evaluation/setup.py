"""From a plan to a bench: the model is loaded here, once per process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from search.evaluation.bench import Bench
from search.evaluation.predictor import make_predictor
from search.model import ModelSource
from search.study.goals import Objective
from search.weights.edit import Editor
from search.weights.matrices import find_matrices
from search.weights.remote import open_factors
from tasks.base import Example, Task


def open_bench(
    source: ModelSource,
    task: Task,
    parts: Mapping[str, Sequence[Example]],
    factors: str | os.PathLike[str],
    *,
    study_id: str = "",
    chunks: int = 1,
    objective: Objective | None = None,
    tokens_per_batch: int = 4096,
    device: str | torch.device = "cpu",
) -> Bench:
    """Load the model on `device` and lay the questions before it. Raises InputError."""
    model = source.load(device)
    editor = Editor(model, find_matrices(model), open_factors(factors))
    predictor = make_predictor(
        source.head,
        model,
        source.tokenizer(),
        tokens_per_batch=tokens_per_batch,
        chat=source.chat_template,
    )
    return Bench(
        editor,
        predictor,
        task,
        parts,
        study_id=study_id,
        chunks=chunks,
        objective=objective,
    )
