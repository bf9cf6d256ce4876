"""The model that an export starts from: its files and its matrices, untouched."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from search.cuts.composition import Composition, Intervention
from search.cuts.refs import MatrixRef
from search.durable import write_json
from search.export.stream import combined, read_header, shard_names, tensor_digests
from search.model import ModelSource
from search.origin import WeightOrigin
from search.weights.checkpoint import CheckpointReader, NotInCheckpoint
from search.weights.matrices import Matrix, all_matrices
from search.weights.views import View
from tasks.errors import InputError, nearest

_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe")
_PAPERS = ("LICENSE", "NOTICE", "USE_POLICY")
_INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Placed:
    """An intervention with its matrix and, where the files hold that, tensor and view of it."""

    intervention: Intervention
    matrix: Matrix
    tensor: str = ""
    view: View = field(default_factory=View)


class Base:
    """A checkpoint to export from. Only what is asked for is read.

    `matrices` are those of its skeleton, by address.
    """

    def __init__(self, source: ModelSource) -> None:
        """Raises InputError if there is no such checkpoint in safetensors."""
        self.source = source
        self.origin = WeightOrigin(source)

    @cached_property
    def skeleton(self) -> torch.nn.Module:
        """The model without its weights."""
        return self.source.skeleton()

    @cached_property
    def matrices(self) -> dict[MatrixRef, Matrix]:
        """Every matrix by address."""
        return {matrix.ref: matrix for matrix in all_matrices(self.skeleton)}

    @property
    def reader(self) -> CheckpointReader:
        """The checkpoint's files."""
        return self.origin.reader

    @cached_property
    def digest(self) -> str:
        """One digest over all stored tensors, whatever files they lie in. Reads every byte."""
        return combined(tensor_digests(self.reader.folder, self.reader.files))

    def place(self, composition: Composition) -> list[Placed]:
        """Find the interventions' matrices. Raises InputError on one that cannot be edited."""
        placed = []
        for intervention in composition.interventions:
            matrix = self.matrices.get(intervention.matrix)
            if matrix is None:
                wanted = str(intervention.matrix)
                raise InputError(
                    f"{self.source.path} has no matrix {wanted}"
                    + nearest(wanted, map(str, self.matrices))
                )
            if matrix.shared:
                raise InputError(
                    f"{matrix.ref} cannot be edited alone: {matrix.parameter} is shared "
                    f"({matrix.shared})"
                )
            try:
                placed.append(Placed(intervention, matrix, *self.reader.place(matrix)))
            except NotInCheckpoint:
                placed.append(Placed(intervention, matrix))
        return placed

    def cast(self, placed: list[Placed]) -> torch.dtype | None:
        """The dtype that all tensors must be cast to for the edits to fit; None as a rule.

        A study that evaluated the model in float32 has edits that a bfloat16 file cannot hold.
        """
        wide: torch.dtype | None = None
        for one in placed:
            if one.tensor:
                stored, evaluated = self.reader.dtype(one.tensor), one.matrix.dtype
                both = torch.promote_types(stored, evaluated)
                if both != stored:
                    wide = both if wide is None else torch.promote_types(wide, both)
        return wide

    def largest_shard_bytes(self) -> int:
        """Size of the largest weight file."""
        folder = self.reader.folder
        return max((folder / name).stat().st_size for name in shard_names(self.reader.files))

    def parameters(self) -> int:
        """Numbers stored in all tensors of the checkpoint."""
        folder = self.reader.folder
        return sum(
            torch.Size(tensor.shape).numel()
            for name in shard_names(self.reader.files)
            for tensor in read_header(folder / name)[1]
        )

    def companions(self) -> list[Path]:
        """Configuration, tokenizer and licence: the files beside the weights.

        Raises InputError if one is a symbolic link to a place where no weights lie: an export may
        be published, and whoever made the checkpoint would choose which file of this machine.
        """
        suffixes = _COMPANIONS + ((".py",) if self.source.trust_remote_code else ())
        found = sorted(
            path
            for path in self.reader.folder.iterdir()
            if path.is_file()
            and (path.name.endswith(suffixes) or path.name.startswith(_PAPERS))
            and not path.name.endswith(_INDEX)
            and path.name not in ("interventions.json", "verification.json", "recipe.json")
        )
        self._check_links(found)
        return found

    def _check_links(self, paths: list[Path]) -> None:
        """Links within the folder are as good as files, and so are those to where weights lie.

        The hub's cache keeps all files of a checkpoint in one folder, beside it.
        """
        folder = self.reader.folder
        homes = {(folder / name).resolve().parent for name in shard_names(self.reader.files)}
        for path in paths:
            target = path.resolve()
            if not (target.is_relative_to(folder.resolve()) or target.parent in homes):
                raise InputError(
                    f"{path} is a symbolic link to {target}, outside of its checkpoint, and would "
                    "be copied into the export; put a copy of the file there, or remove the link"
                )

    def copy_companions(self, out: Path, cast: torch.dtype | None = None) -> None:
        """Copy the companions to `out` byte by byte; with `cast` the configuration names it."""
        for path in self.companions():
            shutil.copyfile(path, out / path.name)
        if cast is not None:
            config = json.loads((out / "config.json").read_text(encoding="utf-8"))
            config.pop("torch_dtype", None)
            config["dtype"] = str(cast).removeprefix("torch.")
            write_json(out / "config.json", config)
