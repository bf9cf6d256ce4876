"""Pictures of a study within a budget: who keeps how much, and the score that a size costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from search.budget import Budget
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.rules import RankRule
from search.report.frames import column_of, row_of
from search.report.maps import measure_map
from search.report.style import LOSS, MARKERS, SERIES, new_figure, styled
from search.study.trials import TrialRecord

FRONT_COLUMNS = ("share", "kept", "score", "kind", "ranks")


def kept_map(budget: Budget, composition: Composition) -> Figure | None:
    """The percentage of its parameters that each matrix keeps, by layer and type.

    None if the composition is no allocation of the budget.
    """
    found = budget.read(composition)
    if found is None:
        return None
    level = Level(RankRule("rank", 1.0), found.kind)
    places = [Intervention(ref, level) for ref in budget.refs]
    shares = [100 * share for share in budget.shares(found.steps)]
    rows = [
        {"row": row_of(place), "column": column_of(place), "value": share}
        for place, share in zip(places, shares, strict=True)
    ]
    return measure_map(pd.DataFrame(rows))


def front_frame(budget: Budget, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per evaluated trial above every floor.

    `share`: the budget that it is for, `kept`: the percentage that it stores, `ranks`: ``uniform``
    or ``searched``, which everything else counts as.
    """
    uniform = {budget.uniform(share) for share in budget.kept}
    rows = []
    for trial in trials:
        found = budget.read(trial.composition) if trial.counts else None
        if found is not None:
            kept = 100 * budget.stored(found.steps) / budget.total
            ranks = "uniform" if found.steps in uniform else "searched"
            rows.append((found.kept, kept, trial.score, found.kind, ranks))
    return pd.DataFrame(rows, columns=list(FRONT_COLUMNS))


def front(found: pd.DataFrame, baseline: float | None) -> Figure:
    """Score against the percentage of parameters kept: by kind of cut, uniform and searched.

    `found`: see `front_frame`. Lines join the best of each budget; single trials are dots.
    """
    with styled():
        figure = new_figure(3.4)
        axes = figure.add_subplot()
        for place, kind in enumerate(sorted(set(found["kind"]))):
            own, colour = found[found["kind"] == kind], SERIES[place % len(SERIES)]
            axes.scatter(own["kept"], own["score"], s=8, color=colour, alpha=0.35, linewidths=0)
            for ranks, line in (("searched", "-"), ("uniform", (0, (3, 2)))):
                some = own if ranks == "searched" else own[own["ranks"] == ranks]
                if not len(some):
                    continue
                best = some.loc[some.groupby("share")["score"].idxmax()].sort_values("kept")
                axes.plot(
                    best["kept"], best["score"], color=colour, linestyle=line, linewidth=1.4,
                    marker=MARKERS[ranks == "uniform"], markersize=4,
                    markerfacecolor="none" if ranks == "uniform" else colour,
                    label=f"{NAMES.get(kind, kind)}, {ranks}",
                )  # fmt: skip
        if baseline is not None:
            axes.axhline(baseline, color=LOSS, linewidth=1.1, linestyle=(0, (4, 3)), label="uncut")
        axes.set(xlabel="% of the parameters kept", ylabel="score on validation")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5, columnspacing=1.2)
    return figure


NAMES = {"keep-top": "plain"}
"""What pictures call a kind, where that is not its own name."""
