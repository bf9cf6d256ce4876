"""From a plan to a bench: the model is loaded here, once per process."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from search.cuts.refs import MatrixRef
from search.evaluation.bench import Bench
from search.evaluation.blocks import Blocks
from search.evaluation.kept import Room
from search.evaluation.last_block import LastBlock
from search.evaluation.passes import Passes
from search.evaluation.predictor import make_predictor
from search.evaluation.prefix import PrefixReuse
from search.model import ModelSource
from search.study.objective import Objective
from search.weights.edit import Editor
from search.weights.matrices import Matrix, find_matrices
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
    searched: Collection[MatrixRef] | None = None,
    room: Room | None = None,
    factored: bool = False,
    further: Sequence[Matrix] = (),
) -> Bench:
    """Load the model on `device` and lay the questions before it. Raises InputError.

    `searched`: matrices that jobs may edit (default: all), before whose blocks activations are
    kept, as far as `room` goes. `factored`: small ranks multiply as two thin factors. `further`:
    matrices that may be edited beside those that are found, such as all of a fused weight.
    """
    model = source.load(device)
    matrices = [*find_matrices(model), *further]
    editor = Editor(model, matrices, open_factors(factors), factored=factored)
    passes = make_passes(model, matrices, searched, room)
    predictor = make_predictor(
        source.head,
        model,
        source.tokenizer(),
        tokens_per_batch=tokens_per_batch,
        chat=source.chat_template,
        passes=passes,
    )
    return Bench(
        editor,
        predictor,
        task,
        parts,
        study_id=study_id,
        chunks=chunks,
        objective=objective,
        passes=passes,
    )


def make_passes(
    model: Any,
    matrices: Sequence[Matrix],
    searched: Collection[MatrixRef] | None = None,
    room: Room | None = None,
) -> Passes:
    """Passes of `model` that begin at the first edit and end with what is scored."""
    blocks = Blocks.of(model, matrices)
    places = [
        place for ref, place in blocks.place_of.items() if searched is None or ref in searched
    ]
    last = LastBlock(model, matrices, blocks.names[-1]) if blocks.names else None
    return Passes(PrefixReuse(blocks, places, room), last)
