"""Maps of the network: the best score per matrix, per reduction, and a composition as a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from search.cuts.composition import Intervention
from search.cuts.refs import GROUPS
from search.report.frames import column_of, row_of, setting_of
from search.report.style import CARD, GAIN, GRID, INK, MUTED, new_figure, styled, tint

MAX_NUMBERED_ROWS = 48
"""Rows up to which a map has room for numbers."""


def best_by(cuts: pd.DataFrame, row: str, column: str) -> pd.DataFrame:
    """The best score of any trial, by two columns of a frame of interventions; both in order."""
    table = cuts.pivot_table(index=row, columns=column, values="score", aggfunc="max")
    return table.reindex(
        index=sorted(table.index, key=_row_order), columns=sorted(table.columns, key=_column_order)
    )


def heat_map(
    table: pd.DataFrame,
    baseline: float,
    *,
    across: str = "",
    down: str = "layer",
    digits: int | None = None,
    signed: bool = False,
) -> Figure:
    """Scores [rows, columns] around the baseline's: gains in blue, losses in orange.

    Cells without a trial stay empty. `across` and `down` name the axes; `digits` are significant
    ones, None writes as many decimals as a cell has room for. `signed`: the values are differences.
    """
    rows, columns = table.shape
    numbered = rows <= MAX_NUMBERED_ROWS
    height = 0.30 if rows <= 14 else 0.22 if numbered else 0.1
    with styled():
        figure = new_figure(0.55 + max(rows, 2) * height)
        axes = figure.add_subplot()
        _cells(axes, table, baseline, numbered, digits, signed)
        axes.set(xlim=(0, columns), ylim=(rows, 0), xlabel=across, ylabel=down)
        axes.set_xticks([x + 0.5 for x in range(columns)], [str(name) for name in table.columns])
        every = max(1, math.ceil(rows / MAX_NUMBERED_ROWS))
        places = range(0, rows, every)
        axes.set_yticks([y + 0.5 for y in places], [str(table.index[y]) for y in places])
        _frameless(axes)
    return figure


MOST_LINES = 16


def network(cuts: Sequence[Intervention], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """The network's searched matrices, layer by layer from the input up; the cut ones are filled.

    The filled part of a box is the fraction of the rank that is kept, where the rule is a fraction.
    Layers without a cut share a line where there are more than MOST_LINES.
    """
    cut = {(row_of(i), column_of(i)): i for i in cuts}
    lines = _lines(list(rows), {row for row, _ in cut})
    with styled():
        figure = new_figure(0.95 + 0.4 * len(lines))
        axes = figure.add_subplot()
        for height, line in enumerate(lines):
            label = f"layer {line[0]}" if len(line) == 1 else f"layers {line[0]} to {line[-1]}"
            axes.text(-0.08, height + 0.5, label, ha="right", va="center", color=MUTED)
            for x, column in enumerate(columns):
                _box(axes, x, height, cut.get((line[0], column)) if len(line) == 1 else None)
        for x, column in enumerate(columns):
            axes.text(x + 0.5, -0.12, column, ha="center", va="top", color=MUTED)
        axes.text(len(columns) / 2, -0.72, "input", ha="center", va="center", color=INK)
        top = len(lines) + 0.3
        axes.text(len(columns) / 2, top, "output", ha="center", va="center", color=INK)
        axes.set(xlim=(-1.1 if len(columns) > 2 else -0.7, len(columns)), ylim=(-0.95, top + 0.25))
        axes.set_axis_off()
    return figure


def _cells(
    axes: Axes,
    table: pd.DataFrame,
    baseline: float,
    numbered: bool,
    digits: int | None,
    signed: bool,
) -> None:
    values = table.to_numpy(dtype=float)
    known = [abs(v - baseline) for v in values.ravel() if math.isfinite(v)]
    span = max(known, default=0.0) or 1.0
    corners, faces = [], []
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if not math.isfinite(value):
                continue
            corners.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
            faces.append(tint((value - baseline) / span))
            if numbered:
                text = _number(value, len(line)) if digits is None else f"{value:.{digits}g}"
                text = f"+{text}" if signed and value > 0 else text
                _write(axes, x + 0.5, y + 0.5, text)
    # One artist for all cells: a patch each takes seconds where there are thousands.
    axes.add_collection(PolyCollection(corners, facecolors=faces, edgecolors=CARD, linewidths=1.5))


def _write(axes: Axes, x: float, y: float, text: str) -> None:
    """A number in its cell; the layout need not measure it."""
    written = axes.text(x, y, text, ha="center", va="center", fontsize=8, clip_on=False)
    written.set_in_layout(False)


def _number(value: float, columns: int) -> str:
    """A score as a cell has room for it: ``0.8446``, among many columns ``.845``."""
    if columns <= 4:
        return f"{value:.4f}"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3g}"


def _lines(rows: list[str], cut: set[str]) -> list[list[str]]:
    """Rows to draw; runs of rows without a cut together where there are too many."""
    if len(rows) <= MOST_LINES:
        return [[row] for row in rows]
    lines: list[list[str]] = []
    for row in rows:
        if row in cut or not lines or lines[-1][-1] in cut or _stack(lines[-1][-1]) != _stack(row):
            lines.append([row])
        else:
            lines[-1].append(row)
    return lines


def _box(axes: Axes, x: float, y: float, cut: Intervention | None) -> None:
    left, low, width, height = x + 0.05, y + 0.12, 0.9, 0.76
    if cut is None:
        axes.add_patch(Rectangle((left, low), width, height, facecolor=GRID, edgecolor="none"))
        return
    kept = cut.rule.value if cut.rule.name == "rho" else 0.0
    axes.add_patch(
        Rectangle((left, low), width, height, facecolor="none", edgecolor=GAIN, linewidth=1.4)
    )
    axes.add_patch(
        Rectangle((left, low), max(0.015, width * kept), height, facecolor=tint(0.8), linewidth=0)
    )
    name = f"ρ {setting_of(cut)}" if cut.rule.name == "rho" else setting_of(cut)
    axes.text(x + 0.5, y + 0.5, name, ha="center", va="center", fontsize=8.5, weight="bold")


def _frameless(axes: Axes) -> None:
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _stack(row: str) -> str:
    return row.rpartition(".")[0]


def _row_order(row: str) -> tuple[str, int, str]:
    stack, _, number = str(row).rpartition(".")
    return (stack, int(number), "") if number.isdigit() else ("~", 0, str(row))


def _column_order(name: str | float) -> tuple[bool, float, str]:
    """Types as in GROUPS, cross attention after; numbers by size, the largest first."""
    if isinstance(name, int | float):
        return (False, -float(name), "")
    cross, _, kind = name.rpartition(".")
    known = GROUPS["all"]
    return (bool(cross), known.index(kind) if kind in known else len(known), name)


def measure_map(measures: pd.DataFrame) -> Figure:
    """A measure [rows, columns] of matrices, the larger the deeper; `value` of `row`, `column`.

    Where several matrices share a place, such as experts, it shows their mean.
    """
    table = measures.pivot_table(index="row", columns="column", values="value", aggfunc="mean")
    table = table.reindex(
        index=sorted(table.index, key=_row_order), columns=sorted(table.columns, key=_column_order)
    )
    finite = [v for v in table.to_numpy(dtype=float).ravel() if math.isfinite(v)]
    return heat_map(table, min(finite, default=0.0), digits=3)
