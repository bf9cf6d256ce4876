"""How figures look: one set of colours for paper, screen and dark mode, and SVG that adapts."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

CARD, INK, MUTED, GRID = "#fefefe", "#1c2128", "#59626d", "#dadfe5"
GAIN, LOSS = "#0a66b0", "#c2540a"
SERIES = ("#0a66b1", "#c2540b", "#00805f", "#a8327d", "#7a6a00", "#5b4bc4", "#3f7d97")
"""Hues that stay apart under the common colour blindnesses; markers tell them apart as well."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STEPS = 20
STRONGEST = 0.62
"""The deepest tint, on which text in INK keeps a contrast above 4.5."""

VARIABLES = {
    CARD: "--card",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    GAIN: "--gain",
    LOSS: "--loss",
    **{colour: f"--s{place}" for place, colour in enumerate(SERIES)},
}
"""Colours that stand for a variable of the page's style sheet."""

WIDTH_IN = 4.4
SCREEN_DPI = 110
"""Of pictures that a notebook shows, in pixels an inch."""
STYLE: Any = {
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "text.parse_math": False,  # names from data and models may hold a dollar
    "font.size": 9,
    "font.family": "sans-serif",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "savefig.dpi": 150,
}


def tint(share: float) -> str:
    """A hex colour from the deepest loss (-1) over the card's (0) to the deepest gain (1)."""
    if not math.isfinite(share):
        return CARD
    step = round(max(-1.0, min(1.0, share)) * STEPS)
    return CARD if step == 0 else _mixed(GAIN if step > 0 else LOSS, abs(step))


def _mixed(colour: str, step: int) -> str:
    part = STRONGEST * step / STEPS
    pairs = zip(_channels(CARD), _channels(colour), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


TINTS = {
    _mixed(colour, step): f"color-mix(in srgb, var({VARIABLES[colour]}) "
    f"{100 * STRONGEST * step / STEPS:.1f}%, var(--card))"
    for colour in (GAIN, LOSS)
    for step in range(1, STEPS + 1)
}
"""Every tint, as the style sheet mixes it: in dark mode from darker colours."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in this style; matplotlib's settings are as before afterwards."""
    with mpl.rc_context(STYLE):
        yield


class Picture(Figure):
    """A figure that a notebook shows, whether or not matplotlib's backend for notebooks is on."""

    def __repr__(self) -> str:
        """Its size, which is all that a text can show of it."""
        width, height = self.get_size_inches()
        return f"<Picture {width:g} x {height:g} in>"

    def _repr_png_(self) -> bytes:
        sink = io.BytesIO()
        with styled():
            self.savefig(sink, format="png", dpi=SCREEN_DPI)
        return sink.getvalue()


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure, of no global state. Draw on it inside `styled`."""
    return Picture(figsize=(width_in, height_in), layout="constrained")


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an SVG element for a page whose style sheet has the variables.

    `name` is unique in the page: it makes the element's ids. `label` says to a reader of the screen
    what is drawn. Every text in the figure is escaped by matplotlib.
    """
    sink = io.StringIO()
    with laid_out(figure):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return for_page(sink.getvalue(), name, label)


def for_page(svg: str, name: str, label: str) -> str:
    """What `save` wrote as SVG as an element for a page; see `to_svg`."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'xlink:href="#{name}-')
    text = _COLOURS.sub(lambda match: _as_css(match[0]), text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1)


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure to each path in the format of its ending, with its light colours."""
    with laid_out(figure):
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


@contextmanager
def laid_out(figure: Figure) -> Iterator[None]:
    """Lay the figure out once, in our style; within, saving it draws it and no more.

    Each `savefig` of a figure with a layout engine draws everything twice, and lays it out twice.
    """
    with styled():
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        try:
            yield
        finally:
            figure.set_layout_engine(engine)


_COLOURS = re.compile("|".join(map(re.escape, [*VARIABLES, *TINTS])))


def _as_css(colour: str) -> str:
    return TINTS.get(colour) or f"var({VARIABLES[colour]})"


def _attribute(text: str) -> str:
    pairs = (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"))
    for plain, escaped in pairs:
        text = text.replace(plain, escaped)
    return text
