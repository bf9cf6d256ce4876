"""An export from a study to a verified folder; and a patch or recipe to a dense one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.calibration.calibration import study_factors
from search.cuts.composition import Composition
from search.durable import write_json, write_text
from search.export.base import Base
from search.export.card import Contents, model_card
from search.export.dense import dense_bytes, write_dense
from search.export.folder import MARK, new_folder
from search.export.format import Work, Written
from search.export.formats import get_format, parameters
from search.export.patch import read_edit, recipe_factors
from search.export.verify import Verification, verify_afresh
from search.phases import SILENT, Phases
from search.published import model_name
from search.study.identity import digest_checkpoint
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from tasks.errors import InputError


@dataclass(frozen=True)
class Wish:
    """What an export shall be. `verify`: load it afresh and ask it the trial's questions."""

    out: Path
    format: str = "dense"
    overwrite: bool = False
    verify: bool = True
    command: str = "laser-search export"


def export(
    record: StudyRecord, trial: TrialRecord, wish: Wish, phases: Phases = SILENT
) -> Verification | None:
    """Write the export of `trial`, its card and interventions.json; then verify it.

    The folder appears whole or not at all. A verdict that does not agree leaves it in place; None
    if it was not asked for. Raises InputError if the folder or the disk is not free, the base model
    is not the one that was searched, or the format cannot hold this composition.
    """
    form = get_format(wish.format)
    phases.enter("reading the checkpoint")
    base = open_base(record)
    composition = trial.composition
    work = Work(base, composition, study_factors(record))
    keep = (base.reader.folder, record.folder, Path(record.config.factors))
    with new_folder(wish.out, form.size(work), overwrite=wish.overwrite, keep=keep) as partial:
        phases.enter("writing the model" if form.own_model else f"writing the {form.name}")
        written = form.write(work, partial)
        contents = contents_of(work, written, wish, partial)
        write_json(partial / MARK, _facts(record, trial, composition, written, wish))
        write_text(partial / "README.md", model_card(record, trial, contents, None))
    if not wish.verify:
        return None
    verdict = verify_afresh(
        wish.out.absolute(), record.folder, trial.number, wish.format, phases=phases
    )
    write_text(wish.out / "README.md", model_card(record, trial, contents, verdict))
    return verdict


def export_words(folder: Path, out: Path, form: str, trial: int | None) -> str:
    """The command as its card tells it: folders by their names."""
    names = [folder.resolve().name, "--out", out.resolve().name]
    chosen = [] if trial is None else ["--trial", str(trial)]
    return shlex.join(["laser-search", "export", *names, "--format", form, *chosen])


def open_base(record: StudyRecord) -> Base:
    """The base model of a study. Raises InputError if a byte of it changed since."""
    source = record.config.model.source()
    if digest_checkpoint(source.folder) != record.identity.checkpoint:
        raise InputError(
            f"the files of {source.path} have changed since the study searched them; restore them"
        )
    return Base(source)


def apply_edit(
    path: Path, model: str, out: Path, *, overwrite: bool = False, phases: Phases = SILENT
) -> bool | None:
    """Make the dense model of a patch or recipe at `path` from its base `model`, in `out`.

    Returns whether the edited tensors have the digests noted in a patch; None where it has none.
    Raises InputError if `model` is another base.
    """
    phases.enter("reading the checkpoint")
    origin, store = read_edit(path)
    base = origin.open(model)
    placed = origin.place(base)
    needed = dense_bytes(base, placed)
    keep = (base.reader.folder, path if path.is_dir() else path.parent)
    with new_folder(out, needed, overwrite=overwrite, keep=keep) as partial:
        phases.enter("writing the model")
        if store is None:
            scratch = partial / ".factors"
            cache = recipe_factors(path, origin, scratch)
            done = write_dense(base, placed, cache, partial)
            _remove(scratch)
        else:
            done = write_dense(base, placed, store, partial)
        facts = {
            "base_model": model_name(origin.base_model),
            "revision": origin.revision,
            "base_tensors": origin.base,
            "composition": origin.composition,
            "edited_tensors": done.changed,
        }
        write_json(partial / MARK, facts)
    return None if not origin.tensors else done.changed == origin.tensors


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def contents_of(work: Work, written: Written, wish: Wish, partial: Path) -> Contents:
    """What was written to `partial`, for its card."""
    source = work.base.source
    before = work.base.parameters()
    form = get_format(wish.format)
    return Contents(
        format=wish.format,
        head=source.head,
        load=form.load_lines(wish.out.name, model_name(source.path), source.head),
        library=form.library,
        rows=written.rows,
        notes=written.notes,
        digests={"composition": work.composition.digest, **written.digests},
        command=wish.command,
        parameters=(before, parameters(partial) if form.own_model else before),
    )


def _facts(
    record: StudyRecord,
    trial: TrialRecord,
    composition: Composition,
    written: Written,
    wish: Wish,
) -> dict[str, Any]:
    model = record.config.model
    return {
        "format": wish.format,
        "base_model": model_name(model.path),
        "revision": model.revision,
        "composition": composition.to_dict(),
        "digest": composition.digest,
        "effect": trial.effect,
        "study": record.identity.study_id,
        "trial": trial.number,
        "validation_score": trial.score,
        "weights": record.identity.weights,
        "digests": written.digests,
        "versions": record.identity.versions,
        "command": wish.command,
        **written.facts,
    }
