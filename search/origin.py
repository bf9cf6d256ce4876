"""One matrix of a checkpoint, as the loaded model would hold it."""

from __future__ import annotations

from torch import Tensor

from search.model import ModelSource
from search.weights.checkpoint import CheckpointReader, NotInCheckpoint
from search.weights.matrices import Matrix


class WeightOrigin:
    """Reads matrices from the checkpoint's files; loads the model only for those it must.

    Some architectures are stored under other names or shapes than they are used (expert stacks,
    for instance); these are read from a loaded model, once. `reader` reads the files.
    """

    def __init__(self, source: ModelSource) -> None:
        """Nothing is read yet. Raises InputError if the weights are not safetensors."""
        self._source = source
        self.reader = CheckpointReader(source.folder)
        self._parameters: dict[str, Tensor] = {}

    def is_direct(self, matrix: Matrix) -> bool:
        """Whether the files hold the matrix as the model does."""
        return self.reader.has(matrix)

    def read(self, matrix: Matrix) -> Tensor:
        """The matrix [out, in], in the dtype that the model is loaded in, on the CPU."""
        try:
            return self.reader.read(matrix)
        except NotInCheckpoint:
            if not self._parameters:
                self._parameters = dict(self._source.load().named_parameters())
            return matrix.read(self._parameters[matrix.parameter])
