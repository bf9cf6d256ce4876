"""A calibration: which model on which texts, measured once, and what a study notes of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.calibration.measure import BUDGET_BYTES, measure
from search.calibration.rows import RowMaker
from search.calibration.texts import Texts, texts_of_data, texts_of_validation
from search.cuts.composition import Composition
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.locations import absolute_location
from search.model import ModelSource
from search.sections import CalibrationConfig
from search.study.identity import digest_checkpoint
from search.study.sealed_files import DamagedError, read_sealed_json, write_sealed_json
from search.study.study_record import StudyRecord
from search.weights.factors import FactorCache
from search.weights.moments import SecondMoment
from search.weights.remote import open_factors, open_moments
from search.weights.whitening import FLOOR
from tasks.base import Example, Head, Task
from tasks.datasets import Split
from tasks.errors import InputError

FILE = "calibration.json"
VERSION = 1
"""Of how texts become second moments; a change that moves one by a bit needs a new one."""

_log = logging.getLogger(__name__)
Moments = Mapping[MatrixRef, SecondMoment]


@dataclass(frozen=True)
class Calibration:
    """What is measured: the inputs of `refs` of the unedited model of `source` on `texts`."""

    source: ModelSource
    refs: tuple[MatrixRef, ...]
    texts: Texts

    @property
    def name(self) -> str:
        """A digest of model and texts, whatever matrices are asked for. Reads every file."""
        source = self.source
        facts = [
            str(VERSION),
            digest_checkpoint(source.folder),
            source.head,
            str(source.torch_dtype),
            str(source.chat_template),
            self.texts.digest,
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:40]

    def run(
        self,
        root: str,
        device: str = "cpu",
        *,
        budget_bytes: int = BUDGET_BYTES,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[MatrixRef, SecondMoment]:
        """Have the second moments in the cache at `root`; what is there is not measured again.

        Other processes that calibrate the same wait. `device`: as for `ModelSource.load`. Raises
        InputError; what was finished stays.
        """
        store, name = open_moments(absolute_location(root)), self.name
        with store.claimed(name):
            model = self.source.load(device)
            rows = RowMaker(model, self.source).rows(self.texts)
            found = measure(
                model,
                self.refs,
                rows,
                store,
                name,
                budget_bytes=budget_bytes,
                on_progress=on_progress,
            )
        for sentence in shortfalls(found):
            _log.warning("%s", sentence)
        return found


def study_texts(chosen: CalibrationConfig, task: Task, split: Split, head: Head) -> Texts:
    """The texts that a study calibrates on; no question of its test or confirm part is in them.

    Raises InputError.
    """
    apart: list[Example] = [*split.test, *split.confirm]
    if chosen.data is not None:
        return texts_of_data(chosen.data, apart, chosen.tokens, chosen.seed)
    return texts_of_validation(task, split.validation, apart, head, chosen.tokens, chosen.seed)


def needs_inputs(levels: Sequence[Level], given: Sequence[Composition] = ()) -> bool:
    """Whether a level or a given composition is made from what matrices are given."""
    cuts = [cut.made_by for one in given for cut in one.interventions]
    return any(kind.needs_inputs for kind in [*(level.made_by for level in levels), *cuts])


def shortfalls(found: Moments) -> list[str]:
    """A sentence for each width of inputs that fewer tokens reached than there are directions."""
    short: dict[tuple[int, int], list[str]] = {}
    for ref, one in found.items():
        if one.tokens < one.width:
            short.setdefault((one.tokens, one.width), []).append(str(ref))
    return [
        f"{tokens} calibration tokens reached {names[0]}"
        f"{f' and {len(names) - 1} more' if names[1:] else ''}, which {width} inputs have: "
        f"directions that none reached count as {FLOOR:g} of the mean and are cut first; "
        "raise calibration.tokens or give more text"
        for (tokens, width), names in sorted(short.items())
    ]


def write_calibration(folder: Path, texts: Texts, found: Moments) -> None:
    """Note in a study's folder what its matrices are given, durably."""
    inputs = {str(ref): _facts(one) for ref, one in sorted(found.items())}
    write_sealed_json(folder / FILE, {"texts": texts.digest, "said": texts.said, "inputs": inputs})


def read_calibration(
    folder: Path, factors: str, texts: Texts | None = None
) -> dict[MatrixRef, SecondMoment]:
    """What `write_calibration` noted, in the cache `factors`; empty where nothing was.

    Raises InputError if the file is damaged, or of other texts than `texts`.
    """
    try:
        facts = read_sealed_json(folder / FILE)
        root = absolute_location(factors)
        found = {
            MatrixRef.parse(ref): SecondMoment(**one, root=root)
            for ref, one in facts["inputs"].items()
        }
        noted = facts["texts"]
    except FileNotFoundError:
        return {}
    except (OSError, DamagedError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{folder / FILE} is damaged ({error}); delete it and resume, and it is measured again"
        ) from None
    if texts is not None and noted != texts.digest:
        raise InputError(
            f"the calibration texts changed since the study began (now {texts.said}); "
            "restore them or launch a new study"
        )
    return found


def noted_calibration(
    calibration: Calibration | None,
    folder: Path,
    factors: str,
    run: Callable[[Calibration], Moments],
) -> Moments:
    """What a study's matrices are given: as its folder notes it, else as `run` measures it now.

    Empty where no cut needs it. Raises InputError if it is not what the study began with.
    """
    if calibration is None:
        return {}
    known = read_calibration(folder, factors, calibration.texts)
    if known and is_kept(known):
        return known
    found = run(calibration)
    check_same(known, found)
    write_calibration(folder, calibration.texts, found)
    return found


def is_kept(found: Moments) -> bool:
    """Whether all of it is in the cache, by the heads of the files."""
    stores = {one.root: open_moments(one.root) for one in found.values()}
    return all(
        stores[one.root].find(one.calibration, one.name) == one for one in set(found.values())
    )


def check_same(before: Moments, now: Moments) -> None:
    """Raise InputError if what a study has used and what was measured anew are not the same."""
    changed = [str(ref) for ref, one in before.items() if ref in now and now[ref] != one]
    if changed:
        raise InputError(
            f"the inputs of {changed[0]} were measured again and differ from those that the study "
            "began with (another machine rounds differently); restore the factors folder or launch "
            "a new study"
        )


def study_factors(record: StudyRecord) -> FactorCache:
    """The factor cache of a study, which knows what its matrices are given. Raises InputError."""
    factors = record.config.factors
    return open_factors(factors, inputs=read_calibration(record.folder, factors))


def _facts(one: SecondMoment) -> dict[str, Any]:
    return {key: value for key, value in asdict(replace(one, root="")).items() if key != "root"}
