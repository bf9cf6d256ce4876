"""Write models from Python: a known cut, or what a study found."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from laser_search.given_cuts import Interventions, intervention_texts
from laser_search.given_model import Model, model_path
from search.export import cut as cuts
from search.export.exported_trial import check_supported, choose_trial
from search.export.run import Wish, export_words
from search.export.run import export as export_trial
from search.export.verify import Verification
from search.locations import absolute_location
from search.model import DType, ModelSource
from search.results import Study
from tasks.base import HeadChoice


def cut(
    model: Model,
    interventions: Interventions,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    format: str = "dense",  # as the command calls it
    head: HeadChoice = "auto",
    dtype: DType = "auto",
    factors: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> cuts.WrittenCut:
    """Write `model` with `interventions` to the folder `out`, without a study.

    Args:
        model: A local folder, a hub id, or a loaded transformers model with its `tokenizer`, which
            is not changed.
        interventions: Texts such as ``27.fc_in=0.01`` or ``*.attn=rank:384``, a composition, a
            file, or a study, which stands for its winner.
        out: A new folder.
        tokenizer: The tokenizer of a loaded model.
        format: ``dense``, ``factored``, ``patch``, ``recipe`` or ``lora`` (docs/export.md).
        head: Which head to load.
        dtype: The dtype of the edited model; ``auto``: the checkpoint's.
        factors: A factor cache; by default the SVDs are not kept.
        overwrite: Replace what an earlier export left in `out`.
        verify: Load it in a fresh process and compare its output with the edit in memory.

    Returns:
        What was written, with its parameter counts; `verdict.agrees` is whether the check passed.

    Raises:
        InputError: On bad input, in one sentence.
    """
    texts, target = intervention_texts(interventions), Path(out).expanduser()
    with tempfile.TemporaryDirectory(prefix="laser-search-") as name:
        path = model_path(model, tokenizer, Path(name))
        wish = Wish(target, format, overwrite, verify, cuts.cut_words(path, texts, target, format))
        cache = None if factors is None else absolute_location(factors)
        return cuts.cut(ModelSource(path, None, head, dtype), texts, wish, cache)


def export(
    study: Study | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "dense",  # as the command calls it
    trial: int | None = None,
    overwrite: bool = False,
    verify: bool = True,
    anyway: bool = False,
) -> Verification | None:
    """Write what `study` found to the folder `out`, as `laser-search export` does.

    Args:
        study: A study or its folder.
        out: A new folder.
        format: ``dense``, ``factored``, ``patch``, ``recipe`` or ``lora`` (docs/export.md).
        trial: The number of a trial; by default the winner.
        overwrite: Replace what an earlier export left in `out`.
        verify: Load it in a fresh process and compare its answers with the trial's.
        anyway: Export even if test does not support a gain.

    Returns:
        The result of the check; `agrees` is whether every answer is the trial's. None if skipped.

    Raises:
        InputError: On bad input, in one sentence.
    """
    record = (study if isinstance(study, Study) else Study.open(study)).record
    chosen = choose_trial(record, trial)
    if not anyway:
        check_supported(record, chosen)
    target = Path(out).expanduser()
    words = export_words(record.folder, target, format, trial)
    return export_trial(record, chosen, Wish(target, format, overwrite, verify, words))
