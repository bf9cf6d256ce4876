"""Rows from a local file or the Hugging Face hub, and the seeded split that keeps groups whole."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.base import Example
from tasks.errors import InputError, nearest
from tasks.foreign import quietly
from tasks.hub import hub
from tasks.readers import Row, read_json, read_jsonl, read_lines, read_parquet, read_table

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_rows(
    source: str,
    revision: str | None = None,
    *,
    names: Sequence[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> list[Row]:
    """Read rows from a local file or a hub data set.

    `source`: a path that ends in .json, .jsonl, .csv, .tsv, .parquet or .txt, else a hub id such as
    ``nyu-mll/glue``, optionally ``ID:CONFIG`` and ``ID:CONFIG:SPLIT``; a path in the data set, such
    as ``en/part-0.json.gz``, may stand for the configuration, and then only it is fetched.
    Without a split, it is the first of validation, test and train. `revision` pins a hub id (a
    commit, tag or branch) and is refused for a file. `names`: columns of a table without a header.
    `renamed`: old name -> new name of columns. Every row is a dict that knows where it came from.
    Raises InputError when there is no such file or data set, or when it has no rows.
    """
    path = Path(source).expanduser()
    if _is_path(source, path):
        if revision is not None:
            raise InputError(
                f"revision {revision!r} does not apply to the local file {source}; remove it"
            )
        rows = _local(path, names)
    else:
        rows = _hub(source, revision)
    if not rows:
        raise InputError(f"{source} has no rows; expected at least two examples")
    for row in rows:
        for old, new in renamed.items():
            if old in row and new not in row:
                row[new] = row.pop(old)
    return rows


def _is_path(source: str, path: Path) -> bool:
    return (
        path.exists()
        or path.suffix.lower() in SUFFIXES
        or source.startswith((".", "/", "~"))
        or "\\" in source
    )


def _local(path: Path, names: Sequence[str]) -> list[Row]:
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise InputError(f"{path} does not exist, and neither does the folder {folder}")
        found = [entry.name for entry in folder.iterdir() if entry.is_file()]
        raise InputError(
            f"{path} does not exist{nearest(path.name, found)}"
            + ("" if nearest(path.name, found) else f"; look at the files in {folder}")
        )
    if path.is_dir():
        files = sorted(e.name for e in path.iterdir() if e.suffix.lower() in SUFFIXES)
        hint = f", for instance {files[0]}" if files else ""
        raise InputError(f"{path} is a folder; give a file in it{hint}")
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".json":
                return read_json(path)
            case ".jsonl":
                return read_jsonl(path)
            case ".csv" | ".tsv":
                return read_table(path, names)
            case ".parquet":
                return read_parquet(path)
            case ".txt":
                return read_lines(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    raise InputError(
        f"{path} ends in {suffix or 'no suffix'}; expected one of {', '.join(SUFFIXES)}"
    )


def _hub(source: str, revision: str | None) -> list[Row]:
    """Load from the hub through `datasets`, whose cache is keyed by commit and locked by file."""
    name, *rest = re.split(r":(?![^\[]*\])", source)  # not at the colon of "train[:100]"
    if not HUB_ID.fullmatch(name) or len(rest) > 2:
        raise InputError(
            f"{source!r} is neither a file ({', '.join(SUFFIXES)}) nor a hub id such as "
            "'nyu-mll/glue:sst2:validation'"
        )
    config = rest[0] if rest and rest[0] else None
    split = rest[1] if len(rest) == 2 else None
    import datasets

    at = f" at revision {revision}" if revision else ""
    with hub() as unreachable, quietly("huggingface_hub", "datasets"):
        try:
            if split is None:
                splits = datasets.get_dataset_split_names(name, config, revision=revision)
                split = next((s for s in ("validation", "test", "train") if s in splits), splits[0])
            files = _one_file(config, split)
            table = datasets.load_dataset(
                name, None if files else config, revision=revision, split=split, **files
            )
        except Exception as error:
            # The library raises many types here (missing, gated, offline, unknown config or split),
            # all of which the user can fix; their first line says what is wrong.
            if unreachable:
                raise InputError(
                    f"data set {source!r}{at} is not in the hub's cache, and {unreachable}; "
                    "connect to the network, or give a local file"
                ) from error
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"data set {source!r}{at} could not be loaded from the hub: {reason}; check its "
                "name and the network, or give a local file"
            ) from error
    return [Row(row, f"{name} {split} row {number}") for number, row in enumerate(table, 1)]


def _one_file(config: str | None, split: str) -> dict[str, Any]:
    """The option that fetches one file of a data set, where one stands for its configuration."""
    if config is None or not config.removesuffix(".gz").endswith(SUFFIXES):
        return {}
    return {"data_files": {split.partition("[")[0]: config}}


@dataclass(frozen=True, slots=True)
class Split:
    """The search sees `validation`; `test` is scored once. No group is in two parts.

    `confirm` is what `tasks.splits.carve` took out of validation, which no trial sees.
    """

    validation: list[Example]
    test: list[Example]
    confirm: list[Example] = field(default_factory=list)

    @property
    def examples(self) -> list[Example]:
        """All of them."""
        return [*self.validation, *self.confirm, *self.test]

    @property
    def parts(self) -> dict[str, list[Example]]:
        """The examples of each part, by its name."""
        return {"validation": self.validation, "confirm": self.confirm, "test": self.test}


def split_by_group(examples: Sequence[Example], validation: float = 0.2, seed: int = 0) -> Split:
    """Split so that groups stay whole.

    Groups are ranked by a hash of their name keyed with `seed`, and taken in that order until they
    hold at least the fraction `validation` of the examples. Which group goes where, and the order
    of the examples within each side (by group rank, then id), depend on the groups, their sizes
    and the seed alone, never on the order of `examples`.
    Raises InputError unless 0 < validation < 1 and both sides get an example.
    """
    if not 0 < validation < 1:
        raise InputError(
            f"validation {validation:g} is not a fraction of the data; expected between 0 and 1, "
            "such as 0.2"
        )
    members: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        members[example.group].append(example)
    key = hashlib.blake2b(f"split {seed}".encode(), digest_size=16).digest()
    ranked = sorted(
        members,
        key=lambda group: (hashlib.blake2b(group.encode(), key=key).digest(), group),
    )
    # The tolerance keeps 0.1 * 30 = 3.0000000000000004 from asking for a fourth example.
    wanted = validation * len(examples) - 1e-9
    split = Split([], [])
    for group in ranked:
        side = split.validation if len(split.validation) < wanted else split.test
        side.extend(sorted(members[group], key=lambda example: example.id))
    if not split.validation or not split.test:
        raise InputError(
            f"{len(examples)} examples in {len(members)} groups cannot be split with validation "
            f"{validation:g}: one side is empty; give more groups or another fraction"
        )
    return split
