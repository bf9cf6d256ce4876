"""One model on one task, before and after a composition, outside any study."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.composition import Composition
from search.evaluation.setup import open_bench
from search.model import HeadChoice, ModelSource
from search.report.text import print_scores, warning
from search.study.jobs import Job
from tasks.base import Example
from tasks.comparison import Comparison, compare
from tasks.datasets import split_by_group
from tasks.metrics import shown_change, shown_interval
from tasks.registry import check_head, get_task
from tasks.scoring import Scores, summarise


@dataclass(frozen=True)
class Direct:
    """The scores by composition text, ``baseline`` first, and their comparison if there are two."""

    metric: str
    part: str
    scores: dict[str, Scores]
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def print(self) -> None:
        """Print a table."""
        from rich.console import Console

        console = Console()
        rows = [(self.part, name, scores) for name, scores in self.scores.items()]
        print_scores(console, rows, self.metric)
        for name, scores in self.scores.items():
            if scores.degenerate:
                console.print(warning(name, scores), style="yellow", highlight=False)
        if (found := self.comparison) is not None:
            console.print(
                f"difference {shown_change(self.metric, found.difference)}, 95 % interval "
                f"{shown_interval(self.metric, found.low, found.high)}, "
                f"p = {found.p_value:.2g} ({found.test})",
                highlight=False,
            )


def evaluate_compositions(
    *,
    model: str,
    head: HeadChoice,
    task_name: str,
    data: str | None,
    split: tuple[str, float, int],
    interventions: list[str],
    factors: Path,
) -> Direct:
    """Evaluate the baseline and, if there are interventions, the composition. Raises InputError."""
    composition = Composition.parse(interventions)
    task = get_task(task_name)
    source = ModelSource(model, head_choice=head)
    check_head(task, source.head)
    part, fraction, seed = split
    examples = _examples(task.load(data), part, fraction, seed)
    for example in examples:
        task.request(example, source.head)
    bench = open_bench(source, task, {part: examples}, factors)
    with bench.editor.applied(composition):
        pass  # bad interventions are refused, and factors computed, before anything is evaluated
    wanted = [Composition()] + ([composition] if composition.interventions else [])
    outcomes = {
        str(wish): bench.evaluate(Job(str(wish), wish, "", part)).outcomes  # type: ignore[arg-type]
        for wish in wanted
    }
    scores = {name: summarise(found, examples) for name, found in outcomes.items()}
    pair = list(outcomes.values())
    comparison = compare(pair[0], pair[1]) if len(pair) == 2 else None
    return Direct(task.metric, part, scores, comparison)


def _examples(examples: list[Example], part: str, fraction: float, seed: int) -> list[Example]:
    if part == "all":
        return examples
    split = split_by_group(examples, fraction, seed)
    return split.validation if part == "validation" else split.test
