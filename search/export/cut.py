"""A cut that is already known, made without a study: written, described and loaded again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.calibration.calibration import Calibration
from search.calibration.texts import texts_of_data
from search.cuts.composition import Composition
from search.cuts.kinds.base import Inputs
from search.cuts.refs import MatrixRef
from search.durable import write_json, write_text
from search.export.afresh import unverified
from search.export.base import Base
from search.export.cut_card import cut_card
from search.export.folder import MARK, new_folder
from search.export.format import Work, Written
from search.export.formats import get_format
from search.export.intervention_file import spelled_out
from search.export.run import Wish, contents_of
from search.export.same_output import SameOutput, verify_output
from search.leftovers import marked_scratch
from search.model import ModelSource, own_device
from search.phases import SILENT, Phases
from search.published import model_name
from search.sections import CalibrationConfig
from search.study.identity import own_versions
from search.weights.factors import FactorCache
from search.weights.remote import check_factors, open_factors
from search.weights.selection import check_interventions, read_composition
from tasks.errors import InputError

BY_HAND = "named by hand"


@dataclass(frozen=True)
class WrittenCut:
    """What was written: the composition, parameters of the base and of this, and the check's end.

    `thin_parameters`: those in pairs of thin layers, which some published counts leave out.
    """

    composition: Composition
    parameters: tuple[int, int]
    thin_parameters: int
    verdict: SameOutput | None


def cut(
    source: ModelSource,
    interventions: Sequence[str],
    wish: Wish,
    factors: str | None = None,
    named: str = BY_HAND,
    phases: Phases = SILENT,
    calibration: str | None = None,
) -> WrittenCut:
    """Write `source` with `interventions` as a folder, with a card; then load it afresh.

    `interventions`: texts such as ``27.fc_in=0.01``, patterns such as ``*.attn=rank:384``, or files
    that hold them. `factors`: a cache whose SVDs are used and added to; by default they are
    computed and thrown away. `named`: who named the interventions, for the card. `calibration`:
    texts for kinds of cut that are made from what matrices are given. Raises InputError
    if nothing is cut, the folder or the disk is not free, or the format cannot hold the
    composition.
    """
    texts = spelled_out(interventions)
    check_interventions(texts)
    if not texts:
        raise InputError(
            "there is nothing to cut; give a cut with --intervention, such as 1.fc_in=0.1"
        )
    form = get_format(wish.format)
    phases.enter("reading the checkpoint")
    base = Base(source)
    composition = read_composition(texts, list(base.matrices.values()))
    with _store(factors) as store:
        root = str(store.root) if factors is None else factors
        store.inputs = _inputs(source, composition, root, calibration)
        work = Work(base, composition, store)
        keep = [base.reader.folder, *([Path(factors)] if factors and "://" not in factors else [])]
        with new_folder(wish.out, form.size(work), overwrite=wish.overwrite, keep=keep) as partial:
            phases.enter("writing the model" if form.own_model else f"writing the {form.name}")
            written = form.write(work, partial)
            contents = contents_of(work, written, wish, partial)
            facts = _facts(source, composition, written, wish)
            write_json(partial / MARK, facts | {"parameters": list(contents.parameters)})
            card = partial / "README.md"
            write_text(card, cut_card(source.path, composition, named, contents, None))
        verdict = None
        if wish.verify:
            phases.enter("checking what was written")
            with unverified(wish.out):
                verdict = verify_output(wish.out, wish.format, source, composition, store)
                card = wish.out / "README.md"
                write_text(card, cut_card(source.path, composition, named, contents, verdict))
    thin = int(written.facts.get("thin_parameters", 0))
    return WrittenCut(composition, contents.parameters, thin, verdict)


def cut_words(model: str, interventions: Sequence[str], out: Path, form: str) -> str:
    """The command as its card tells it: the model and the folder by their names."""
    named = [word for text in interventions for word in ("--intervention", text)]
    words = ["laser-search", "cut", model_name(model), *named, "--out", out.resolve().name]
    return shlex.join([*words, "--format", form])


def _inputs(
    source: ModelSource, composition: Composition, root: str, data: str | None
) -> Mapping[MatrixRef, Inputs]:
    """What the matrices are given whose cuts are made from it. Raises InputError without `data`."""
    needy = [cut for cut in composition.interventions if cut.made_by.needs_inputs]
    if not needy:
        return {}
    if data is None:
        raise InputError(
            f"{needy[0]} depends on the inputs of the matrix on texts; give some with "
            "--calibration, or export a study that calibrated"
        )
    usual = CalibrationConfig()
    texts = texts_of_data(data, (), usual.tokens, usual.seed)
    refs = tuple(one.matrix for one in needy)
    return Calibration(source, refs, texts).run(root, own_device())


@contextmanager
def _store(factors: str | None) -> Iterator[FactorCache]:
    """The cache at `factors`, or one that goes at the end."""
    if factors is not None:
        check_factors(factors)
        yield open_factors(factors)
        return
    with marked_scratch() as scratch:
        yield FactorCache(scratch.folder / "factors")


def _facts(
    source: ModelSource, composition: Composition, written: Written, wish: Wish
) -> dict[str, Any]:
    return {
        "format": wish.format,
        "base_model": model_name(source.path),
        "revision": source.revision,
        "composition": composition.to_dict(),
        "digest": composition.digest,
        "study": None,
        "digests": written.digests,
        "versions": own_versions(),
        "command": wish.command,
        **written.facts,
    }
