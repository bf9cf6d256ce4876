"""Plots of a study's course: history, score against rank, parallel coordinates, trust, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search.report.style import (
    GAIN,
    GRID,
    INK,
    LOSS,
    MARKERS,
    MUTED,
    SERIES,
    new_figure,
    styled,
    tint,
)
from tasks.base import Outcome
from tasks.calibration import BINS

MANY = 1500
"""Marks above which a layer of marks is drawn as pixels, so that the page stays small."""


def history(trials: pd.DataFrame, baseline: float | None) -> Figure:
    """Scores in order of trial with the best so far, pruned and failed trials, and the baseline."""
    done = trials[(trials["state"] == "complete") & trials["feasible"]]
    broken = trials[(trials["state"] == "complete") & ~trials["feasible"]]
    pruned = trials[trials["state"] == "pruned"]
    failed = trials[trials["state"] == "fail"]
    with styled():
        figure = new_figure(2.9)
        axes = figure.add_subplot()
        raster = len(trials) > MANY
        axes.scatter(
            done["trial"], done["score"], s=9, color=SERIES[0], alpha=0.45, linewidths=0,
            rasterized=raster, label="evaluated",
        )  # fmt: skip
        if len(pruned):
            axes.scatter(
                pruned["trial"], pruned["partial"], s=14, marker="x", color=MUTED, linewidths=0.8,
                rasterized=raster, label="pruned (on part of the questions)",
            )  # fmt: skip
        if len(broken):
            axes.scatter(
                broken["trial"], broken["score"], s=14, marker="+", color=LOSS, linewidths=0.9,
                rasterized=raster, label="breaks a floor",
            )  # fmt: skip
        if len(failed):
            foot = np.nanmin([*done["score"], baseline if baseline is not None else math.inf])
            axes.scatter(
                failed["trial"], [foot] * len(failed), s=16, marker="v", color=LOSS, label="failed"
            )
        if len(done):
            best = done["score"].cummax()
            axes.step(done["trial"], best, where="post", color=INK, label="best so far")
        _baseline(axes, baseline)
        axes.set(xlabel="trial", ylabel="score on validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        columns = 2 if len(pruned) or len(failed) or len(broken) else 3
        figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.5, columnspacing=1.2)
    return figure


def score_by_rho(cuts: pd.DataFrame, baseline: float | None) -> Figure:
    """The best score against the fraction of rank kept: a panel per type, a line per layer."""
    known = cuts[cuts["rho"] > 0]
    kinds = list(dict.fromkeys(sorted(known["column"])))
    panels = max(1, len(kinds))
    with styled():
        figure = new_figure(0.6 + 2.0 * panels)
        grid = figure.subplots(panels, 1, sharex=True, sharey=True, squeeze=False)[:, 0].tolist()
        rows = list(dict.fromkeys(known.sort_values("layer")["row"]))
        for axes, kind in zip(grid, kinds, strict=False):
            for row, found in known[known["column"] == kind].groupby("row", sort=False):
                best = found.groupby("rho")["score"].max()
                place = rows.index(row)
                few = len(rows) <= len(SERIES)
                colour = SERIES[place] if few else _shade(place, len(rows))
                axes.plot(
                    best.index, best.to_numpy(), color=colour, linewidth=1.3,
                    marker=MARKERS[place % len(MARKERS)] if few else None, markersize=3.5,
                    label=f"layer {row}" if few or place in (0, len(rows) - 1) else None,
                )  # fmt: skip
            _baseline(axes, baseline)
            axes.set(title=kind, ylabel="best score", xscale="log")
        values = sorted(set(known["rho"]))
        if 0 < len(values) <= 12:
            shown = [v for v, w in pairwise([*values, math.inf]) if w / v > 1.35]
            grid[-1].set_xticks(shown, [f"{v:g}" for v in shown])
            grid[-1].minorticks_off()
        grid[-1].set_xlabel("ρ, fraction of the rank kept")
        handles = _legend(grid, [f"layer {row}" for row in rows])
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper left", ncols=4, columnspacing=1.1
        )
    return figure


MOST_LINES = 6000


def parallel(cuts: pd.DataFrame, baseline: float | None) -> Figure:
    """A line per cut matrix through interventions, layer, type, rank and the trial's score.

    Lines are tinted by the score around the baseline and drawn from worst to best. Of more than
    MOST_LINES every n-th in order of score is drawn.
    """
    ordered = cuts.sort_values("score", kind="stable")
    ordered = ordered.iloc[:: max(1, math.ceil(len(ordered) / MOST_LINES))]
    scales = [_scale(ordered, name) for name in ("interventions", "row", "column", "setting")]
    names = ["cuts in\nthe trial", "layer", "type", "kept"]
    with styled():
        figure = new_figure(3.2)
        axes = figure.add_subplot()
        low, high = _limits(ordered["score"])
        score = (ordered["score"].to_numpy() - low) / ((high - low) or 1)
        spread = np.random.default_rng(0).uniform(-0.018, 0.018, size=(len(ordered), 4))
        columns = [places + spread[:, i] for i, (places, _) in enumerate(scales)]
        points = np.stack([*columns, score], axis=1)
        lines = [np.column_stack([np.arange(5), line]) for line in points]
        centre = low if baseline is None else baseline
        span = max(high - centre, centre - low) or 1
        colours = [_line_colour((value - centre) / span) for value in ordered["score"]]
        axes.add_collection(
            LineCollection(
                lines, colors=colours, linewidths=0.8, alpha=0.5, rasterized=len(lines) > MANY
            )
        )
        for x, (_, labels) in enumerate(scales):
            _axis(axes, x, labels)
        _axis(
            axes, 4, {f"{value:.3f}": (value - low) / ((high - low) or 1) for value in (low, high)}
        )
        axes.set(xlim=(-0.35, 4.45), ylim=(-0.06, 1.04), yticks=[])
        axes.set_xticks(range(5), [*names, "score"])
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return figure


def differences(comparisons: Mapping[str, Mapping[str, float]]) -> Figure:
    """The change of the score by part, each with its 95 % interval, and the line of no change."""
    parts = list(comparisons)
    with styled():
        figure = new_figure(0.55 + 0.42 * len(parts))
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=1)
        for y, part in enumerate(parts):
            found = comparisons[part]
            gained = found["low"] > 0
            colour = GAIN if gained else LOSS if found["high"] < 0 else INK
            axes.plot([found["low"], found["high"]], [y, y], color=colour, linewidth=2.4)
            axes.plot([found["difference"]], [y], "o", color=colour, markersize=6)
            text = f"{found['difference']:+.4f}"
            axes.text(found["difference"], y - 0.22, text, ha="center", va="bottom", weight="bold")
        axes.set(ylim=(len(parts) - 0.5, -0.75), xlabel="change of the score, 95 % interval")
        axes.set_yticks(range(len(parts)), parts)
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def reliability(sides: Mapping[str, Sequence[Outcome]]) -> Figure:
    """Accuracy against confidence in BINS of equal width; on the diagonal confidence is right."""
    with styled():
        figure = new_figure(3.2)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, (side, outcomes) in enumerate(sides.items()):
            x, y, sizes = _bins(outcomes)
            colour = _side_colour(place)
            axes.plot(x, y, color=colour, marker=MARKERS[place], markersize=4.5, label=side)
            axes.scatter(x, y, s=[300 * n / max(1, sum(sizes)) for n in sizes], color=colour,
                         alpha=0.25, linewidths=0)  # fmt: skip
        axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left")
    return figure


def probabilities(sides: Mapping[str, Sequence[Outcome]]) -> Figure:
    """How probable the right answers are: the share of questions at or below each probability."""
    with styled():
        figure = new_figure(2.7)
        axes = figure.add_subplot()
        for place, (side, outcomes) in enumerate(sides.items()):
            values = np.sort(np.exp([min(0.0, o.log_probability) for o in outcomes]))
            share = np.arange(1, len(values) + 1) / len(values)
            at = np.unique(np.linspace(0, len(values) - 1, 300).astype(int))
            axes.plot(
                values[at], share[at], color=_side_colour(place), label=side,
                linestyle="-" if place else (0, (4, 2)),
            )  # fmt: skip
        axes.set(xlabel="probability of the right answer", ylabel="share of questions",
                 xlim=(0, 1), ylim=(0, 1.01))  # fmt: skip
        axes.legend(loc="upper left")
    return figure


def time_parts(seconds: Mapping[str, float]) -> Figure:
    """Where the workers' time went, in seconds summed over all trials."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    with styled():
        figure = new_figure(0.5 + 0.32 * max(1, len(ordered)))
        axes = figure.add_subplot()
        names = [name for name, _ in ordered]
        values = [value for _, value in ordered]
        axes.barh(range(len(ordered)), values, height=0.62, color=GAIN)
        for y, value in enumerate(values):
            axes.text(value, y, f"  {value:,.3g} s", va="center", color=INK)
        axes.set_yticks(range(len(ordered)), names)
        axes.set(xlabel="seconds in workers", ylim=(len(ordered) - 0.5, -0.5))
        axes.margins(x=0.18)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def _legend(grid: Sequence[Axes], order: Sequence[str]) -> dict[str, Artist]:
    """One entry for each label of any panel: first those in `order`, then the others."""
    found: dict[str, Artist] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    names = [name for name in order if name in found]
    return {name: found[name] for name in [*names, *found]}


def _baseline(axes: Axes, baseline: float | None) -> None:
    if baseline is not None:
        axes.axhline(baseline, color=LOSS, linewidth=1.1, linestyle=(0, (4, 3)), label="baseline")


def _shade(place: int, count: int) -> str:
    """Later layers darker."""
    return tint(0.35 + 0.65 * place / max(1, count - 1))


def _line_colour(share: float) -> str:
    return SERIES[0] if share > 0.5 else tint(max(0.3, share) if share > 0 else min(-0.3, share))


def _side_colour(place: int) -> str:
    return (LOSS, GAIN)[place % 2]


def _scale(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, dict[str, float]]:
    """Places in [0, 1] of a column's values, and those of its labels."""
    values = list(dict.fromkeys(frame[name]))
    order = sorted(values, key=_natural)
    places = {
        value: (i / (len(order) - 1) if len(order) > 1 else 0.5) for i, value in enumerate(order)
    }
    every = max(1, math.ceil(len(order) / 12))
    labels = {
        str(value): place for i, (value, place) in enumerate(places.items()) if i % every == 0
    }
    return np.array([places[value] for value in frame[name]], dtype=float), labels


def _natural(value: object) -> tuple[str, float, str]:
    stack, _, number = str(value).rpartition(".") if not _is_number(value) else ("", "", str(value))
    try:
        return (stack, float(number), "")
    except ValueError:
        return ("~", math.inf, str(value))


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _axis(axes: Axes, x: int, labels: Mapping[str, float]) -> None:
    axes.plot([x, x], [-0.02, 1.02], color=GRID, linewidth=1.2, zorder=0)
    for label, y in labels.items():
        text = axes.text(x + 0.05, y, label, va="center", fontsize=7.5, zorder=5)
        text.set_bbox({"facecolor": "#fefefe", "alpha": 0.75, "pad": 0.6, "linewidth": 0})


def _limits(values: pd.Series) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _bins(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float], list[int]]:
    found: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for o in outcomes:
        if o.confidence is not None:
            found[min(BINS - 1, max(0, math.ceil(o.confidence * BINS) - 1))].append(
                (o.confidence, o.score)
            )
    full = [pairs for pairs in found if pairs]
    mean = [tuple(map(float, np.mean(pairs, axis=0))) for pairs in full]
    return [x for x, _ in mean], [y for _, y in mean], [len(pairs) for pairs in full]
