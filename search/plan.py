"""From a configuration to everything that can be known before weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from search.config import StudyConfig
from search.model import ModelSource
from search.space import Space
from search.strategies.registry import check_strategy
from search.weights.matrices import Matrix, find_matrices
from search.weights.refs import MatrixRef
from tasks.base import Task
from tasks.datasets import Split, split_by_group
from tasks.registry import check_head, get_task


@dataclass(frozen=True)
class Plan:
    """A checked study: its questions, its model's matrices, its space."""

    config: StudyConfig
    source: ModelSource
    task: Task
    split: Split
    matrices: tuple[Matrix, ...]
    space: Space

    @property
    def max_ranks(self) -> dict[MatrixRef, int]:
        """min(out, in) of every matrix of the model."""
        return {matrix.ref: min(matrix.shape) for matrix in self.matrices}

    @property
    def searched(self) -> tuple[Matrix, ...]:
        """The matrices of the space."""
        chosen = set(self.space.matrices)
        return tuple(matrix for matrix in self.matrices if matrix.ref in chosen)


def make_plan(config: StudyConfig) -> Plan:
    """Check a configuration against its task, data and model, cheapest first. Raises InputError."""
    check_strategy(config.search.strategy)
    task = get_task(config.task.name)
    source = config.model.source()
    check_head(task, source.head)
    examples = task.load(config.task.data, config.task.revision)
    for example in examples:
        task.request(example, source.head)  # a question that this head cannot be asked raises here
    split = split_by_group(examples, config.split.validation, config.split.seed)
    matrices = tuple(find_matrices(source.skeleton()))
    return Plan(config, source, task, split, matrices, Space.build(config.space, matrices))
