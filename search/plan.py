"""From a configuration to everything that can be known before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from search.calibration.calibration import Calibration, needs_inputs, study_texts
from search.calibration.texts import Texts
from search.config import StudyConfig
from search.cuts.composition import Composition, brief
from search.cuts.refs import MatrixRef
from search.evaluation.general_text import read_general_text
from search.evaluation.vocabulary import check_vocabulary
from search.model import ModelSource
from search.sections import TaskConfig
from search.space import Space
from search.strategies.auto import Auto
from search.strategies.registry import check_strategy
from search.study.collateral import GeneralText
from search.study.objective import Objective
from search.study.race import looks_at
from search.study.warm_start import resolve
from search.weights.matrices import Matrix, all_matrices
from search.witness import Witness, data_files
from tasks.base import Example, Head, Task
from tasks.datasets import Split
from tasks.errors import InputError
from tasks.identity import count_duplicates
from tasks.paper import PaperScoring
from tasks.parts import PartSize, size_of
from tasks.power import HITS, detectable_text, few_text
from tasks.registry import check_head, get_task
from tasks.several import Asked, Several
from tasks.splits import carve, split_tasks


@dataclass(frozen=True)
class Plan:
    """A checked study: its questions, its model's matrices, its space.

    The configuration's `search.warm_start` holds compositions alone. `witness` noted the files of
    model and data before any was read. `texts`: what is calibrated on, where a cut needs that.
    `general_text`: what the winner's collateral is measured on. `model_bytes`: of the weights, as
    they are loaded.
    """

    config: StudyConfig
    source: ModelSource
    task: Task
    split: Split
    matrices: tuple[Matrix, ...]
    space: Space
    objective: Objective
    witness: Witness = field(default_factory=Witness)
    texts: Texts | None = None
    general_text: GeneralText | None = None
    model_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        """What every worker on a CPU holds of the weights in memory of its own."""
        return 0 if self.source.stays_mapped else self.model_bytes

    @property
    def max_ranks(self) -> dict[MatrixRef, int]:
        """min(out, in) of every matrix of the model."""
        return {matrix.ref: min(matrix.shape) for matrix in self.matrices}

    @property
    def searched(self) -> tuple[Matrix, ...]:
        """The matrices of the space."""
        chosen = set(self.space.matrices)
        return tuple(matrix for matrix in self.matrices if matrix.ref in chosen)

    @property
    def parts(self) -> dict[str, Sequence[Example]]:
        """What an evaluator of this study asks, by part."""
        texts = self.general_text or GeneralText("", ())
        return {**self.split.parts, "guard": texts.examples, "sample": texts.sample}

    @property
    def given(self) -> list[Composition]:
        """The compositions of `search.warm_start`, which are tried first."""
        return [Composition.parse(text.split()) for text in self.config.search.warm_start]

    @property
    def calibration(self) -> Calibration | None:
        """What is measured before the factors are made; None where no cut needs it."""
        if self.texts is None:
            return None
        return Calibration(self.source, tuple(m.ref for m in self.searched), self.texts)

    @property
    def sizes(self) -> list[PartSize]:
        """Questions and groups of each part."""
        return [size_of(name, examples) for name, examples in self.split.parts.items()]

    @property
    def notices(self) -> list[str]:
        """What people should know before they trust a score, or a size."""
        large = [warning for size in self.sizes for warning in size.warnings]
        return data_notices(self.split.examples) + large + self._never_thin()

    def _never_thin(self) -> list[str]:
        """That parts of a larger tensor count as small in a budget, and stay large in a file."""
        if self.space.budget is None:
            return []
        parts = [m for m in self.searched if m.view.width or m.view.expert is not None]
        if not parts:
            return []
        return [
            f"{len(parts)} matrices of the budget, such as {parts[0].ref}, are parts of a larger "
            "tensor, which a factored export keeps dense: the file will be larger than the budget"
        ]

    @property
    def prospects(self) -> list[str]:
        """Which gain could be found at all, task by task where answers are hits or misses."""
        found = []
        for goal in self.objective.goals:
            few = few_text(sum(x.task == goal.task for x in self.split.validation))
            groups = len({x.group for x in self.split.test if x.task == goal.task})
            said = ([few] if few else []) + (
                [detectable_text(groups)] if goal.metric in HITS else []
            )
            found += [f"{goal.task}: {text}" if goal.task else text for text in said]
        return found


def open_task(config: TaskConfig, head: Head) -> Task:
    """The task as configured, for a model with this head. Raises InputError."""
    task = get_task(
        config.name, num_fewshot=config.num_fewshot, limit=config.limit, folder=config.data
    )
    check_head(task, head)
    return PaperScoring(task, head, config.tokenizer) if config.scoring == "paper" else task


def open_asked(config: StudyConfig, head: Head) -> Task:
    """What a study asks: its task, or its tasks side by side. Raises InputError."""
    if config.task is not None:
        return open_task(config.task, head)
    return Several(
        {
            label: Asked(open_task(goal, head), goal.data, goal.revision)
            for label, goal in config.goals.items()
        }
    )


def data_notices(examples: Sequence[Example]) -> list[str]:
    """Sentences on repeated and contradictory examples; empty where there are none."""
    found = count_duplicates(examples)
    notices = []
    if found.exact:
        notices.append(f"{found.exact} of {len(examples)} examples repeat another one exactly")
    if found.contradictory:
        notices.append(
            f"{found.contradictory} of {len(examples)} examples share their question with one "
            "that has another answer"
        )
    return notices


def make_plan(config: StudyConfig) -> Plan:
    """Check a configuration against its task, data and model, cheapest first. Raises InputError."""
    check_strategy(config.search, config.space.budget)
    source = config.model.source()
    named = [goal.data for goal in config.goals.values()]
    named.append(None if config.guard is None else config.guard.data)
    data = [Path(name).expanduser() for name in named if name]
    witness = Witness(source.folder, [file for path in data for file in data_files(path)])
    task = open_asked(config, source.head)
    only = config.task or TaskConfig(name=task.name)
    examples = task.load(only.data, only.revision)
    for example in examples:
        task.request(example, source.head)  # a question that this head cannot be asked raises here
    chosen = config.split
    split = split_tasks(examples, chosen.validation, chosen.seed, chosen.protocol)
    if (confirm := config.search.confirm) is not None:
        split = carve(split, confirm.share, chosen.seed)
    objective = Objective.of(config, getattr(task, "metrics", {"": task.metric}))
    skeleton = source.skeleton()
    matrices = tuple(all_matrices(skeleton))
    source.check_weights()
    general_text = read_general_text(config.guard, source, split.test, split.validation)
    further = (*general_text.examples, *general_text.sample) if general_text else ()
    check_vocabulary(source, skeleton, [*examples, *further])
    space = Space.build(config.space, matrices)
    if config.products == "svd-lowrank":
        space = replace(space, ladder=space.ladder.as_laser(source.model_type))
    if config.search.warm_start:
        config = _with_compositions(config, matrices, space)
    if space.budget is not None:
        config = _without_reuse(config, matrices, space)
    config = _with_pruner(config, len(split.validation))
    plan = Plan(
        config,
        source,
        task,
        split,
        matrices,
        space,
        objective,
        witness,
        general_text=general_text,
        model_bytes=sum(parameter.nbytes for parameter in skeleton.parameters()),
    )
    if needs_inputs(space.levels, plan.given):
        texts = study_texts(config.calibration, task, split, source.head)
        return replace(plan, texts=texts)
    return plan


def _with_pruner(config: StudyConfig, questions: int) -> StudyConfig:
    """The configuration with what its pruner ``auto`` means for as many questions of validation.

    A race where `auto` searches cuts for one task; it learns from trials that are stopped, too.
    """
    search = config.search
    if search.pruner != "auto":
        return config
    chunks = search.chunks if search.chunks > 1 else looks_at(questions)
    races = search.strategy == Auto.name and not search.pareto and chunks > 1
    if not races or config.tasks is not None or config.space.budget is not None:
        change: dict[str, object] = {"pruner": "none"}
    else:
        change = {"pruner": "race", "chunks": chunks}
    return config.model_copy(update={"search": search.model_copy(update=change)})


def _without_reuse(config: StudyConfig, matrices: Sequence[Matrix], space: Space) -> StudyConfig:
    """The configuration with no activations kept where every trial begins at the first block."""
    first = min(matrix.ref.layer for matrix in matrices)
    if all(ref.layer > first for ref in space.matrices):
        return config
    nothing = {"memory_gib": 0.0, "host_gib": 0.0, "file_gib": 0.0}
    return config.model_copy(update={"reuse": config.reuse.model_copy(update=nothing)})


def _with_compositions(
    config: StudyConfig, matrices: Sequence[Matrix], space: Space
) -> StudyConfig:
    """The configuration with the compositions that its warm start means now.

    They are frozen with it: a study that it names may go on, or go away.
    """
    found = resolve(config.search.warm_start, matrices, space.matrices)
    for one in found:
        if space.budget is not None and space.budget.read(one) is None:
            raise InputError(
                f"search.warm_start holds {brief(str(one))!r}, which is not an allocation of "
                f"space.budget: its cuts are ranks of kind {' or '.join(space.budget.kinds)}, and "
                f"all matrices together keep at most {space.budget.kept[0]:g}"
            )
    search = config.search.model_copy(update={"warm_start": [str(one) for one in found]})
    return config.model_copy(update={"search": search})
