"""What the replays say: regret against what was spent, as one table and one plot.

    python benchmarks/landscape/summary.py --tables ./landscape/demo --plot regret.png

Regret: the best validation score known of any composition in the table, minus the best that the
study has seen so far (the unedited model's counts). Spent: evaluations, and forward passes, of
which a trial that begins at block l of L takes (L - l) / L; both as shares of what the grid of all
single cuts takes. Curves are medians over seeds with quartiles. On test the winners of each
strategy are compared with greedy's, question by question.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from replay import REPLAYS
from table import Landscape

from search.cuts.composition import Composition
from search.report.style import SERIES, STYLE
from search.study.jobs import Job
from tasks.comparison import compare

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
UNITS = ("evaluations", "passes")


@dataclass(frozen=True)
class Yardstick:
    """What replays on one table are measured by.

    `best`, `single`: the best scores of all compositions and of single cuts. `cost`: the grid's, by
    unit.
    """

    best: float
    single: float
    baseline: float
    cost: dict[str, float]

    @staticmethod
    def of(landscape: Landscape) -> Yardstick:
        """From everything that the table knows."""
        known = landscape.effects()
        single = list(landscape.grid())
        return Yardstick(
            best=max(truth.score for truth in known.values()),
            single=max(known[effect].score for effect in single),
            baseline=known[""].score,
            cost={
                "evaluations": float(len(single)),
                "passes": sum(map(landscape.passes, single)),
            },
        )


def course(found: dict[str, Any], unit: str, baseline: float) -> tuple[list[float], list[float]]:
    """What was spent after each trial, and the best score so far."""
    spent, best, so_far = [0.0], [baseline], baseline
    for number, step in enumerate(found["curve"], start=1):
        so_far = max(so_far, step["score"] if step["score"] is not None else so_far)
        passes = found.get("before", 0.0) + step["passes"]
        spent.append(float(number) if unit == "evaluations" else passes)
        best.append(so_far)
    return spent, best


def at(spent: Sequence[float], values: Sequence[float], budget: float) -> float:
    """The value when `budget` is spent."""
    return values[int(np.searchsorted(spent, budget + 1e-9, side="right")) - 1]


def spent_to(spent: Sequence[float], values: Sequence[float], score: float) -> float:
    """What was spent when `score` was reached, inf if never."""
    return next((s for s, v in zip(spent, values, strict=True) if v >= score - 1e-12), np.inf)


def quartiles(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.4f} ({low:.4f}-{high:.4f})"


def load(landscape: Landscape) -> dict[str, list[dict[str, Any]]]:
    """The replays of a table by strategy, of each seed the longest."""
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted((landscape.folder / REPLAYS).glob("*.json")):
        found = json.loads(path.read_text())
        key = (found["strategy"], found["seed"])
        if key not in kept or len(found["curve"]) > len(kept[key]["curve"]):
            kept[key] = found
    strategies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (strategy, _), found in sorted(kept.items()):
        strategies[strategy].append(found)
    return strategies


def on_test(landscape: Landscape, effect: str) -> tuple[float, Any]:
    """The score of an effect's composition on test, and its evaluation."""
    known = landscape.effects()
    text = known[effect].composition if effect else ""
    composition = Composition.parse(text.split()) if effect else Composition()
    job = Job("test", composition, effect, "test")
    found = landscape.evaluation(job)
    return found.score, found


def rows(landscape: Landscape, unit: str) -> list[list[str]]:
    """Regret by strategy after shares of the grid's cost, and when the best single was reached."""
    yard = Yardstick.of(landscape)
    table = []
    for strategy, replays in load(landscape).items():
        courses = [course(found, unit, yard.baseline) for found in replays]
        cells = []
        for share in SHARES:
            budget = share * yard.cost[unit]
            reached = [c for c in courses if c[0][-1] >= budget * 0.98 or _ended(c)]
            values = [yard.best - at(*c, budget) for c in reached]
            cells.append(quartiles(values) if values else "")
        reach = [spent_to(*c, yard.single) / yard.cost[unit] for c in courses]
        middle = float(np.median(reach))
        tenth = sum(share <= 0.1 + 1e-9 for share in reach)
        cells += [f"{middle:.0%}" if np.isfinite(middle) else "more", f"{tenth}/{len(reach)}"]
        table.append([strategy, str(len(replays)), *cells])
    return table


def _ended(found: tuple[list[float], list[float]]) -> bool:
    """Whether a strategy ended by itself: those of one pass over a list do."""
    return len(found[0]) < 60


def finals(landscape: Landscape) -> list[list[str]]:
    """Winners on validation and test, and against greedy's on test."""
    strategies = load(landscape)
    greedy = strategies.get("greedy", [])
    reference = on_test(landscape, greedy[0]["winner"])[1] if greedy else None
    table = []
    for strategy, replays in strategies.items():
        tests, better, worse, differences = [], 0, 0, []
        for found in replays:
            score, evaluation = on_test(landscape, found["winner"])
            tests.append(score)
            if reference is not None:
                against = compare(reference.outcomes, evaluation.outcomes)
                differences.append(against.difference)
                better += against.low > 0 and against.p_value < 0.05
                worse += against.high < 0 and against.p_value < 0.05
        best = [f["merit"][0] if f["merit"] else f["baseline"] for f in replays]
        cells = [quartiles(best), quartiles(tests)]
        if reference is not None:
            cells += [f"{np.median(differences):+.4f}", f"{better}", f"{worse}"]
        table.append([strategy, str(len(replays)), *cells])
    landscape.save()
    return table


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(landscapes: Sequence[Landscape], path: Path) -> None:
    """Regret against what was spent, a row per table, a column per unit."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.8, 3.4 * len(landscapes)), layout="constrained")
        axes = figure.subplots(len(landscapes), len(UNITS), squeeze=False)
        for line, landscape in zip(axes, landscapes, strict=True):
            for place, unit in zip(line, UNITS, strict=True):
                _draw_one(place, landscape, unit)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
        figure.savefig(path)


def _draw_one(axes: Axes, landscape: Landscape, unit: str) -> None:
    yard = Yardstick.of(landscape)
    grid: NDArray[np.float64] = np.geomspace(0.01, 1.0, 120)
    for number, (strategy, replays) in enumerate(load(landscape).items()):
        curves = [course(found, unit, yard.baseline) for found in replays]
        values = np.array([[yard.best - at(*c, s * yard.cost[unit]) for s in grid] for c in curves])
        low, middle, high = np.percentile(values, [25, 50, 75], axis=0)
        colour = SERIES[number % len(SERIES)]
        line = ("-", "--")[number >= len(SERIES)]
        axes.plot(grid, middle, line, color=colour, label=strategy)
        axes.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(yard.best - yard.single, color="#59626d", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel=f"{unit}, as a share of the grid's", ylabel="regret")
    axes.set_title(f"{landscape.folder.name}: regret by {unit} (dotted: the best single cut)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    landscapes = [Landscape(folder) for folder in asked.tables]
    for landscape in landscapes:
        yard = Yardstick.of(landscape)
        print(f"\n## {landscape.folder.name}: {yard}, {len(landscape.effects())} known\n")
        for unit in UNITS:
            head = ["strategy", "seeds", *(f"regret at {share:.0%}" for share in SHARES)]
            head += ["best single after", "within 10 %"]
            print(f"by {unit}\n\n{markdown(head, rows(landscape, unit))}\n")
        head = ["strategy", "seeds", "validation", "test", "test - greedy's", "better", "worse"]
        print(f"winners\n\n{markdown(head, finals(landscape))}")
    if asked.plot:
        draw(landscapes, asked.plot)


if __name__ == "__main__":
    main()
