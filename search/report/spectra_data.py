"""The spectra to look at: of a model's matrices, or of what a factor cache holds."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from search.cuts.refs import MatrixRef
from search.evaluation.predictor import make_predictor
from search.model import ModelSource, own_device
from search.origin import WeightOrigin
from search.phases import SILENT, Phases
from search.plan import open_task
from search.sections import TaskConfig
from search.weights.factors import FactorCache
from search.weights.matrices import Matrix, all_matrices
from search.weights.remote import open_factors
from search.weights.selection import expand
from search.weights.spectra import Array, Spectrum, cosines
from search.weights.svd import decompose
from search.weights.upkeep import existing
from tasks.errors import InputError

QUESTIONS, TOKENS = 64, 512
"""Questions that are asked for real inputs, and inputs that are kept per matrix."""


def choose(matrices: Sequence[Matrix], patterns: Sequence[str]) -> list[Matrix]:
    """The matrices that `patterns` name, all searchable ones without any. Raises InputError."""
    if not patterns:
        found = [matrix for matrix in matrices if matrix.searchable]
        if not found:
            raise InputError(
                "the model has no matrix that can be searched; select one with --address"
            )
        return found
    wanted = {ref for pattern in patterns for ref in expand(pattern, matrices)}
    return [matrix for matrix in matrices if matrix.ref in wanted]


def spectra_of_model(
    source: ModelSource,
    patterns: Sequence[str],
    factors: str | os.PathLike[str] | None,
    phases: Phases = SILENT,
) -> list[Spectrum]:
    """The spectra of a model's matrices, from a factor cache where it has them. Loads no model."""
    phases.enter("reading the checkpoint")
    chosen = choose(all_matrices(source.skeleton()), patterns)
    origin = WeightOrigin(source)
    cache = None if factors is None else open_factors(factors)
    phases.enter("singular values", len(chosen))
    found = []
    for matrix in chosen:
        values = _values(origin.read(matrix), cache)
        name = str(matrix.ref)
        found.append(Spectrum(name, source.path, matrix.module, matrix.shape, values))
        phases.advance(len(found), detail=name)
    return found


def spectra_of_cache(folder: str, patterns: Sequence[str]) -> list[Spectrum]:
    """The spectra that a factor cache's index holds, one per origin. Raises InputError."""
    found = []
    for entry in existing(folder).index().values():
        for origin in entry.origins:
            model, _, name = origin.rpartition(":")
            values = np.asarray(entry.spectrum, dtype=np.float64)
            found.append(Spectrum(name, model, "", entry.shape, values))
    if patterns:
        found = [s for s in found if any(_fits(s.name, pattern) for pattern in patterns)]
    if not found:
        raise InputError(
            f"{folder} holds no factors{' of ' + ', '.join(patterns) if patterns else ''}; "
            "fill it with laser-search decompose"
        )
    return sorted(found, key=lambda s: (s.model, _order(s.name)))


def real_cosines(
    source: ModelSource, task: TaskConfig, names: Sequence[str], phases: Phases = SILENT
) -> dict[str, Array]:
    """By matrix [k]: mean cosine between W x and W_r x over the inputs that questions give it.

    The first questions of the task are asked one by one, so that nothing is padded, and each
    matrix's inputs are kept up to a number. Matrices without an input of their own, such as
    stacked experts, are left out.
    """
    phases.enter("loading the model")
    model = source.load(own_device())
    chosen = [m for m in all_matrices(model) if str(m.ref) in set(names)]
    asked = open_task(task, source.head)
    examples = asked.load(task.data, task.revision)[:QUESTIONS]
    inputs = _record(model, chosen)
    predictor = make_predictor(
        source.head, model, source.tokenizer(), tokens_per_batch=4096, chat=source.chat_template
    )
    phases.enter("questions", len(examples))
    for number, example in enumerate(examples, start=1):
        predictor.answer(predictor.prepare([asked.request(example, source.head)]))
        phases.advance(number)
    parameters = dict(model.named_parameters())
    found = {}
    phases.enter("cosines of real inputs")
    for matrix in chosen:
        if not (seen := inputs[matrix.ref]):
            continue
        parts = decompose(matrix.read(parameters[matrix.parameter]).cpu())
        coordinates = torch.cat(seen)[:TOKENS].double() @ parts.V.double()
        found[str(matrix.ref)] = cosines(parts.S.double().numpy(), coordinates.numpy())
    return found


def _record(model: nn.Module, chosen: Sequence[Matrix]) -> dict[MatrixRef, list[Tensor]]:
    """Lists that fill with the inputs [tokens, in] of the matrices' modules as the model runs."""
    inputs: dict[MatrixRef, list[Tensor]] = {matrix.ref: [] for matrix in chosen}
    modules = dict(model.named_modules())
    for matrix in chosen:
        if matrix.view.expert is not None or matrix.module not in modules:
            continue
        kept = inputs[matrix.ref]

        def hook(
            _: nn.Module, args: tuple[Tensor, ...], kept: list[Tensor] = kept, m: Matrix = matrix
        ) -> None:
            if sum(map(len, kept)) < TOKENS and args and args[0].shape[-1] == m.shape[1]:
                kept.append(args[0].detach().reshape(-1, m.shape[1]).float().cpu())

        modules[matrix.module].register_forward_pre_hook(hook)
    return inputs


def _values(weight: Tensor, cache: FactorCache | None) -> Array:
    if cache is not None and cache.has(key := cache.key(weight)):
        return np.asarray(cache.spectrum(key), dtype=np.float64)
    found: Array = torch.linalg.svdvals(weight.double()).numpy()
    return found


def _fits(name: str, pattern: str) -> bool:
    """Whether an address is meant by an address, or by ``*.TYPE`` or ``LAYER.*``."""
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern)


def _order(name: str) -> tuple[int, str, MatrixRef | None]:
    try:
        ref = MatrixRef.parse(name)
    except InputError:
        return (1, name, None)
    return (0, f"{ref.stack}.{ref.layer:06d}.{ref.cross}.{ref.type}", None)
