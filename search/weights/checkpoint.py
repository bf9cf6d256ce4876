"""Single matrices straight from a safetensors checkpoint, without building the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from search.weights.matrices import Matrix
from search.weights.resolution import weight_files
from search.weights.views import View
from search.weights.whole import check_weights, open_weights
from tasks.errors import InputError


class NotInCheckpoint(KeyError):  # noqa: N818  (named for what it says)
    """The checkpoint stores a matrix under another name or in another form than the model does.

    Transformers converts some weights while it loads (expert stacks, renamed modules). The remedy
    is to load the model and read the matrix there.
    """


class CheckpointReader:
    """Reads matrices of a model from the safetensors files in `folder`, one file or sharded.

    Names may lack the prefix of the base model (``bert.``, ``transformer.``, ``model.``) or carry
    one that the model lacks, as transformers itself allows. Only the bytes of the matrix that is
    asked for are read. Raises InputError as `weight_files` does. `files` names
    the file of each tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files = weight_files(self.folder)
        self._suffixes = _by_suffix(self.files)

    def check(self) -> None:
        """Raises InputError unless every file is there and whole, as far as headers say."""
        check_weights(self.folder, self.files)

    def has(self, matrix: Matrix) -> bool:
        """Whether `read` would find the matrix, by name and shape."""
        try:
            self.place(matrix)
        except NotInCheckpoint:
            return False
        return True

    def place(self, matrix: Matrix) -> tuple[str, View]:
        """Name of the tensor that holds the matrix, and the view of it there.

        Raises NotInCheckpoint if it is stored otherwise, InputError if the file is torn.
        """
        name, view = self._place(matrix)
        with self._open(name) as stream:
            self._check_shape(matrix, view, tuple(stream.get_slice(name).get_shape()))
        return name, view

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in which tensor `name` is stored."""
        with self._open(name) as stream:
            found: torch.dtype = stream.get_slice(name)[:0].dtype
        return found

    def read(self, matrix: Matrix) -> Tensor:
        """The matrix [out, in] on the CPU, in `matrix.dtype`, as the loaded model would hold it.

        Raises NotInCheckpoint if it is stored otherwise there, InputError if the file is torn.
        """
        name, view = self._place(matrix)
        with self._open(name) as stream:
            stored = stream.get_slice(name)
            self._check_shape(matrix, view, tuple(stored.get_shape()))
            expert = view.expert
            # Of a stack only the wanted expert's bytes are read.
            tensor: Tensor = stored[:] if expert is None else stored[expert : expert + 1]
        if not tensor.is_floating_point():
            raise InputError(
                f"{name} in {self.folder} is quantised ({tensor.dtype}); "
                "use the unquantised weights"
            )
        cut = view if expert is None else replace(view, expert=0)
        part = cut.of(tensor).clone(memory_format=torch.contiguous_format).view(matrix.shape)
        return part.to(matrix.dtype)

    def _open(self, name: str) -> safe_open:
        return open_weights(self.folder / self.files[name])

    def _place(self, matrix: Matrix) -> tuple[str, View]:
        """Name of the tensor that holds the matrix, and the view of it there."""
        name = self._name(matrix.parameter)
        if name is not None:
            return name, matrix.view
        for single in _single_expert(matrix):
            name = self._name(single)
            if name is not None:
                return name, View()
        raise NotInCheckpoint(f"{matrix.parameter} is not in {self.folder}")

    def _name(self, wanted: str) -> str | None:
        if wanted in self.files:
            return wanted
        # Without the base model's prefix, or with one: the names must agree in all that is left.
        without = wanted.partition(".")[2]
        candidates = [without] if without in self.files else []
        candidates += self._suffixes.get(wanted, [])
        return candidates[0] if len(candidates) == 1 else None

    @staticmethod
    def _check_shape(matrix: Matrix, view: View, shape: tuple[int, ...]) -> None:
        dimensions = 2 if view.expert is None else 3
        if len(shape) != dimensions or view.shape(shape) != matrix.shape:
            raise NotInCheckpoint(f"{matrix.parameter} has shape {shape} in the checkpoint")


_SINGLE_EXPERT = {
    "fc_in": ("gate_proj", "w1"),
    "fc_up": ("up_proj", "w3"),
    "fc_out": ("down_proj", "w2"),
}


def _single_expert(matrix: Matrix) -> Iterator[str]:
    """Names under which files hold one expert of what transformers stacks while it loads."""
    path, found, _ = matrix.parameter.rpartition(".experts.")
    expert = matrix.view.expert
    if not found or expert is None:
        return
    block = path.rpartition(".")[0]
    for leaf in _SINGLE_EXPERT.get(matrix.ref.type, ()):
        yield f"{path}.experts.{expert}.{leaf}.weight"
        yield f"{block}.block_sparse_moe.experts.{expert}.{leaf}.weight"


def _by_suffix(names: Iterable[str]) -> dict[str, list[str]]:
    """Name without its first component -> the names that end so."""
    suffixes: dict[str, list[str]] = {}
    for name in names:
        suffixes.setdefault(name.partition(".")[2], []).append(name)
    return suffixes
