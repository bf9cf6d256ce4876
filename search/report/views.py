"""Three views of what cuts do: alone, beside others, and in the best company that they kept.

The best score of any trial with a cut says little of the cut: one that does nothing shines where a
good one stood beside it. So maps begin with the cut alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd
from matplotlib.figure import Figure

from search.report.maps import best_by, heat_map
from tasks.errors import InputError, nearest

VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "alone": "cut alone",
        "gain": "gain over the same composition without it",
        "best": "best of all trials with this cut",
    }
)
"""Names of the views and what people call them, in the order of the report."""

MOST_SETTINGS = 24
"""Ranks that have a map of their own, or a column; more are rounded, or left out."""


@dataclass(frozen=True)
class MapView:
    """A heat map to choose: its name, its title and what is seen in it."""

    name: str
    title: str
    figure: Figure
    words: str


def of_view(cuts: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows of a frame of interventions that `view` shows, `score` being what it shows.

    Gains are means over all pairs of trials, by matrix and setting; `pairs` counts them. Raises
    InputError if there is no such view.
    """
    if view not in VIEWS:
        raise InputError(
            f"view {view!r} does not exist; expected one of {', '.join(VIEWS)}"
            + nearest(view, VIEWS)
        )
    if view == "alone":
        return cuts[cuts["interventions"] == 1]
    if view == "best":
        return cuts
    paired = cuts[cuts["gain"].notna()]
    by_cut = paired.groupby(["matrix", "setting"], sort=False)
    found = by_cut.first().reset_index()
    found["score"] = by_cut["gain"].mean().to_numpy()
    found["pairs"] = by_cut.size().to_numpy()
    return found


def draw(
    own: pd.DataFrame,
    view: str,
    baseline: float,
    *,
    row: str,
    column: str,
    across: str = "",
    down: str = "layer",
) -> Figure:
    """The heat map of rows from `of_view`; gains lie around zero and have a sign."""
    table = best_by(own, row, column)
    gain = view == "gain"
    return heat_map(table, 0.0 if gain else baseline, signed=gain, across=across, down=down)


def map_groups(cuts: pd.DataFrame, baseline: float) -> list[tuple[str, list[MapView]]]:
    """The heat maps to choose from: layer by type and per rank, and layer by rank per type."""
    by_type = [
        _view(own, view, f"map-{view}", title, baseline, "column")
        for view, title in VIEWS.items()
        if len(own := of_view(cuts, view))
    ]
    alone = of_view(cuts, "alone")
    shown = alone if len(alone) else cuts
    view = "alone" if len(alone) else "best"
    settings = shown.drop_duplicates("setting").sort_values("rho", ascending=False)["setting"]
    for place, setting in enumerate(settings[:MOST_SETTINGS]):
        own = shown[shown["setting"] == setting]
        title = f"{VIEWS[view]}, kept {setting}"
        by_type.append(_view(own, view, f"map-s{place}", title, baseline, "column"))
    groups = [("layer × type", by_type), *_by_rank(cuts, baseline)]
    return [(name, views) for name, views in groups if views]


def _by_rank(cuts: pd.DataFrame, baseline: float) -> Iterator[tuple[str, list[MapView]]]:
    """Per view a group of maps, one for each matrix type."""
    for view, title in VIEWS.items():
        known = of_view(cuts, view)
        known = known[known["rho"].notna()]
        if known["rho"].nunique() > MOST_SETTINGS:
            known = known.assign(rho=known["rho"].round(1))
        views = [
            _view(own, view, f"map-{view}-{kind}", f"{kind}, {title}", baseline, "rho")
            for kind, own in known.groupby("column")
        ]
        yield f"layer × fraction kept, {title}", views


def _view(
    own: pd.DataFrame, view: str, name: str, title: str, baseline: float, column: str
) -> MapView:
    across = "ρ" if column == "rho" else ""
    figure = draw(own, view, baseline, row="row", column=column, across=across)
    return MapView(name, title, figure, _words(own, view, title, baseline, column))


def _words(own: pd.DataFrame, view: str, title: str, baseline: float, column: str) -> str:
    top = own.loc[own["score"].idxmax()]
    ranks = "" if column == "rho" else ", at its best rank"
    around = f"blue above the baseline's {baseline:.4f}, orange below"
    what, value = {
        "alone": (
            f"the score of trials that cut this matrix and nothing else{ranks}; {around}",
            f"{top['score']:.4f}",
        ),
        "gain": (
            "the mean difference between a trial with the cut and the same composition without "
            f"it, over all pairs that were evaluated, the unedited model included{ranks}; blue is "
            "a gain, orange a loss",
            f"{top['score']:+.4f}",
        ),
        "best": (
            f"the best score of trials with this cut, whatever else they cut; {around}. It shows "
            "where good trials are, not what a cut does",
            f"{top['score']:.4f}",
        ),
    }[view]
    pairs = f" ({int(top['pairs'])} pairs)" if view == "gain" else ""
    top_cut = f"{top['matrix']} kept at {top['setting']}"
    return f"{title[:1].upper()}{title[1:]}: {what}. Highest: {value} with {top_cut}{pairs}."
