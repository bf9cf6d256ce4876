"""Score a model from Python, before and after a composition."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from laser_search.given_cuts import Interventions, intervention_texts
from laser_search.given_model import Model, model_path
from laser_search.given_questions import Questions, questions_path
from search.locations import absolute_location
from search.model import DType, ModelSource
from search.sections import SplitConfig, TaskConfig
from search.standalone import CutRequest, StandaloneResult, evaluate_compositions
from tasks.base import HeadChoice


def evaluate(
    model: Model,
    questions: Questions = None,
    interventions: Interventions = (),
    *,
    tokenizer: Any = None,
    task: str = "jsonl",
    part: Literal["all", "validation", "test"] = "all",
    validation: float = 0.2,
    seed: int = 0,
    factors: str | os.PathLike[str] | None = None,
    head: HeadChoice = "auto",
    dtype: DType = "auto",
) -> StandaloneResult:
    """Score `model` on `questions` in this process, without and with `interventions`.

    Args:
        model: A local folder, a hub id, or a loaded transformers model with its `tokenizer`, which
            is saved into a temporary folder and not changed.
        questions: As in `laser_search.search`.
        interventions: Texts such as ``27.fc_in=0.01``, a composition, a file, or a study, which
            stands for its winner. Without interventions, only the model is scored.
        tokenizer: The tokenizer of a loaded model.
        task: The task's name.
        part: Which questions to score.
        validation: The fraction of the validation part, if `part` is not ``all``.
        seed: The seed of the split.
        factors: A factor cache; by default the SVDs are not kept.
        head: Which head to load.
        dtype: The dtype to load the model in; ``auto``: the checkpoint's.

    Returns:
        Scores by composition, ``baseline`` first, and their comparison; notebooks display it.

    Raises:
        InputError: On bad input, in one sentence.
    """
    texts = tuple(intervention_texts(interventions))
    with tempfile.TemporaryDirectory(prefix="laser-search-") as name:
        scratch = Path(name)
        return evaluate_compositions(
            source=ModelSource(model_path(model, tokenizer, scratch), None, head, dtype),
            task=TaskConfig(name=task, data=questions_path(questions, scratch)),
            part=part,
            split=SplitConfig(validation=validation, seed=seed),
            cuts=CutRequest(texts),
            factors=absolute_location(scratch / "factors" if factors is None else factors),
        )
