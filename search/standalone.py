"""One model on one task, before and after a composition, outside any study."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console

from search.calibration.calibration import Calibration, study_texts
from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.evaluation.vocabulary import check_vocabulary
from search.model import ModelSource, own_device
from search.phases import SILENT, Phases, in_batches
from search.plan import data_notices, open_task
from search.report.notebook import as_html
from search.report.text import PAPER_TIES, print_scores, score_warnings, truncation_notices
from search.sections import CalibrationConfig, SplitConfig, TaskConfig
from search.study.jobs import Job
from search.terminal import Terminal
from search.weights.fused import fused_notice, whole_weights, widened
from search.weights.matrices import Matrix, all_matrices
from search.weights.moments import SecondMoment
from search.weights.selection import check_interventions, laser_triple, read_composition
from tasks.base import Example, Task
from tasks.comparison import Comparison, compare
from tasks.datasets import Split
from tasks.errors import InputError
from tasks.metrics import shown_change, shown_interval
from tasks.parts import PartSize, size_of, sizes_text
from tasks.scoring import Scores, summarise
from tasks.splits import split_examples


@dataclass(frozen=True)
class StandaloneResult:
    """The scores by composition text, ``baseline`` first, and their comparison if there are two.

    `notices`: what to know about the data before trusting a score. `sizes`: of `part`, and of the
    other part where the data was split.
    """

    metric: str
    part: str
    scores: dict[str, Scores]
    comparison: Comparison | None
    notices: list[str] = field(default_factory=list)
    sizes: list[PartSize] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return as_html(self.print)

    def print(self, console: Console | None = None) -> None:
        """Print a table on `console`, by default the terminal."""
        console = console or Terminal(markup=False, emoji=False)
        if self.sizes:
            console.print(sizes_text(self.sizes), highlight=False)
        for notice in self.notices:
            console.print(f"Note: {notice}", style="yellow", highlight=False, markup=False)
        rows = [(self.part, name, scores) for name, scores in self.scores.items()]
        print_scores(console, rows, self.metric)
        for name, scores in self.scores.items():
            for text in score_warnings(name, scores, self.part):
                console.print(text, style="yellow", highlight=False)
        if (found := self.comparison) is not None:
            console.print(
                f"difference {shown_change(self.metric, found.difference)}, 95 % interval "
                f"{shown_interval(self.metric, found.low, found.high)}, "
                f"p = {found.p_value:.2g} ({found.test})",
                highlight=False,
            )


@dataclass(frozen=True)
class CutRequest:
    """The cuts that a command names: `interventions`, which may name many matrices by a pattern.

    `triple`, instead: LASER's ``--lname``, ``--lnum`` and ``--rate``, which name all of a fused
    weight if `fused` is ``whole``. `products` ``svd-lowrank``: cuts are made as LASER's code does.
    `calibration`: texts for kinds of cut that are made from what matrices are given; by default
    the validation part's, where test is scored.
    """

    interventions: tuple[str, ...] = ()
    triple: tuple[str, int, float] | None = None
    products: Literal["exact", "svd-lowrank"] = "exact"
    fused: Literal["named", "whole"] = "named"
    calibration: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no intervention, before anything is read."""
        check_interventions(list(self.interventions))

    def resolve(self, source: ModelSource) -> ResolvedCuts:
        """The composition for the matrices of a model. Raises InputError."""
        if not self.interventions and self.triple is None:
            return ResolvedCuts(Composition())
        matrices = all_matrices(source.skeleton())
        further: list[Matrix] = []
        notices: list[str] = []
        if self.triple is None:
            composition = read_composition(list(self.interventions), matrices)
        else:
            composition = laser_triple(*self.triple, matrices)
            if self.fused == "whole":
                composition = widened(composition, (10 - self.triple[2]) * 0.1, matrices)
                further = list(dict.fromkeys(whole_weights(matrices).values()))
            else:
                notices = fused_notice(composition, self.triple[0], matrices)
        if self.products == "svd-lowrank":
            composition = composition.as_laser(source.model_type)
        return ResolvedCuts(composition, tuple(further), tuple(notices))


@dataclass(frozen=True)
class ResolvedCuts:
    """A composition, and the matrices that it names beside those that are found in a model."""

    composition: Composition
    further: tuple[Matrix, ...] = ()
    notices: tuple[str, ...] = ()


def evaluate_compositions(
    *,
    source: ModelSource,
    task: TaskConfig,
    part: Literal["all", "validation", "test"],
    split: SplitConfig,
    cuts: CutRequest,
    factors: str | os.PathLike[str],
    phases: Phases = SILENT,
) -> StandaloneResult:
    """Evaluate the baseline and, if there are cuts, their composition. Raises InputError."""
    phases.enter("reading the checkpoint")
    resolved = cuts.resolve(source)
    composition = resolved.composition
    asked = open_task(task, source.head)
    phases.enter("reading the questions")
    parts = _parts(asked.load(task.data, task.revision), part, split)
    examples = parts[part]
    for example in examples:
        asked.request(example, source.head)
    check_vocabulary(source, source.skeleton(), examples)
    questions = Questions(asked, {part: examples})
    if any(cut.made_by.needs_inputs for cut in composition.interventions):
        phases.enter("calibrating")
    inputs = _inputs(source, asked, parts, part, cuts, composition, factors)
    hosting = Hosting(own_device(), further=resolved.further, inputs=inputs)
    phases.enter("loading the model")
    evaluator = open_evaluator(source, questions, factors, hosting)
    phases.enter("factors", len(composition.interventions))
    with evaluator.editor.applied(composition):
        pass  # bad interventions are refused, and factors computed, before anything is evaluated
    wanted = [Composition()] + ([composition] if composition.interventions else [])
    found = {}
    for wish in wanted:
        job = Job(str(wish), wish, "", part)  # type: ignore[arg-type]
        name = "after the cut" if wish.interventions else "baseline"
        found[str(wish)] = evaluator.evaluate(job, in_batches(phases, name))
    scores = {name: summarise(one.outcomes, examples) for name, one in found.items()}
    pair = [one.outcomes for one in found.values()]
    comparison = compare(pair[0], pair[1]) if len(pair) == 2 else None
    sizes = [size_of(name, members) for name, members in parts.items()]
    notices = [
        *resolved.notices,
        *data_notices(examples),
        *(said for size in sizes if size.part == part for said in size.warnings),
        *truncation_notices(part, next(iter(found.values())).truncated),
        *([PAPER_TIES] if task.scoring == "paper" else []),
    ]
    return StandaloneResult(asked.metric, part, scores, comparison, notices, sizes)


def _inputs(
    source: ModelSource,
    task: Task,
    parts: Mapping[str, list[Example]],
    part: str,
    cuts: CutRequest,
    composition: Composition,
    factors: str | os.PathLike[str],
) -> Mapping[MatrixRef, SecondMoment]:
    """What the cut matrices are given, measured where a cut needs it. Raises InputError."""
    needy = [cut for cut in composition.interventions if cut.made_by.needs_inputs]
    if not needy:
        return {}
    chosen = CalibrationConfig(data=cuts.calibration)
    if chosen.data is None and part != "test":
        raise InputError(
            f"{needy[0]} depends on the inputs of the matrix on texts; give some that are not "
            "scored with --calibration, or use --split test, which calibrates on validation"
        )
    apart = Split(parts.get("validation", []), parts[part])
    texts = study_texts(chosen, task, apart, source.head)
    refs = tuple(cut.matrix for cut in needy)
    return Calibration(source, refs, texts).run(os.fspath(factors), own_device())


def _parts(examples: list[Example], part: str, split: SplitConfig) -> dict[str, list[Example]]:
    if part == "all":
        return {part: examples}
    parts = split_examples(examples, split.validation, split.seed, split.protocol)
    return {"validation": parts.validation, "test": parts.test}
