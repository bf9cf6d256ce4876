"""Spectra as pictures, tables and files: `laser-search spectra`."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from search.cuts.refs import MatrixRef
from search.durable import write_bytes, write_json, write_text
from search.phases import SILENT, Phases
from search.published import model_name
from search.report.maps import measure_map
from search.report.style import GAIN, INK, LOSS, MUTED, SERIES, for_page, new_figure, save, styled
from search.weights.spectra import Array, Spectrum, random_cosines
from tasks.errors import InputError

DETAILED = 24
"""Matrices whose plots stand in the page; the others' lie beside it."""

MEASURES = (
    ("effective_rank", "Effective rank", "exp of the entropy of σ / Σσ: how many directions count"),
    ("stable_rank", "Stable rank", "‖W‖² over σ₁²: low where one direction outweighs the others"),
    (
        "signal_to_noise",
        "Signal to noise",
        "Σ of the singular values above laserRMT's threshold over the rest, undivided: strategy "
        "snr tries the lowest first (snr.json has it over the largest value)",
    ),
    ("excess", "Above the noise", "singular values above the Marchenko-Pastur edge"),
)


@dataclass(frozen=True)
class Detail:
    """One matrix in the page: its plots and its numbers."""

    spectrum: Spectrum
    svg: Markup


def write_spectra(
    spectra: Sequence[Spectrum],
    out: Path,
    real: Mapping[str, Array] | None = None,
    *,
    figures: bool = True,
    phases: Phases = SILENT,
) -> list[Path]:
    """Write spectra.html, spectra.parquet, the SNR tables and a PNG and an SVG of every figure.

    `real`: by matrix, the cosines for real inputs. Without `figures`, which take most of the time,
    the page holds the table alone. Returns the files. Raises InputError if the
    folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures = _Pictures()
        if figures:
            (out / "figures").mkdir(exist_ok=True)
            pictures = _draw(spectra, out, real or {}, phases)
        phases.enter("writing the table")
        return _write(spectra, out, real or {}, pictures)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}); choose another folder with --out"
        ) from None


def spectrum_figure(spectrum: Spectrum, real: Array | None = None) -> Figure:
    """Singular values, energy and error against rank, cosines, and the histogram with its bulk."""
    with styled():
        figure = new_figure(6.6)
        grid = figure.subplots(3, 2).ravel().tolist()
        _values(grid[0], spectrum)
        ranks = np.arange(len(spectrum.values) + 1, dtype=np.float64)
        _curve(grid[1], ranks, spectrum.energy, "energy kept", "rank")
        _curve(grid[2], ranks, spectrum.error, "‖W − Wᵣ‖, Frobenius", "rank")
        cosine = random_cosines(spectrum.values)
        grid[3].plot(ranks[1:], cosine, color=GAIN, label="random x")
        if real is not None:
            grid[3].plot(ranks[1:], real, color=LOSS, linestyle=(0, (4, 2)), label="real x")
        grid[3].legend(loc="lower right")
        grid[3].set(title="cosine of Wx and Wᵣx", xlabel="rank")
        _histogram(grid[4], spectrum)
        _facts(grid[5], spectrum)
    return figure


def overview(spectra: Sequence[Spectrum], measure: str) -> Figure:
    """A map of layers and types of one of MEASURES."""
    rows = []
    for s in spectra:
        ref = _ref(s.name)
        if ref is not None:
            kind = f"cross.{ref.type}" if ref.cross else ref.type
            rows.append((ref.row, kind, _measure(s, measure)))
    return measure_map(pd.DataFrame(rows, columns=["row", "column", "value"]))


def snr_table(spectra: Sequence[Spectrum]) -> dict[str, dict[str, object]]:
    """Signal to noise by module as the scanners of laserRMT and spectrum write it.

    Their ``snr`` is `Spectrum.scanner_snr`, the ratio divided by the largest singular value, and
    not what their search scripts (and strategy snr) sort by; null stands for infinity.
    """
    found: dict[str, dict[str, object]] = {}
    for s in spectra:
        ratio = s.scanner_snr
        kind = ".".join(s.module.split(".")[-2:]) if s.module else s.name.rpartition(".")[2]
        name = s.module or s.name
        found[name] = {"snr": ratio if math.isfinite(ratio) else None, "type": kind}
    return found


@dataclass(frozen=True)
class _Pictures:
    """The figures that were written, those of the page, and its maps: title, words, SVG."""

    files: Sequence[Path] = ()
    details: Sequence[Detail] = ()
    maps: Sequence[tuple[str, str, Markup]] = ()


def _draw(
    spectra: Sequence[Spectrum], out: Path, real: Mapping[str, Array], phases: Phases
) -> _Pictures:
    """Draw every figure, and write each as PNG and SVG."""
    written: list[Path] = []
    details = []
    models = {s.model for s in spectra}
    phases.enter("figures", len(spectra) + len(MEASURES))
    for place, s in enumerate(spectra):
        figure = spectrum_figure(s, real.get(s.name))
        stem = _file_name(s.name if len(models) == 1 else f"{place}-{s.name}")
        png, svg = _save(figure, out / "figures" / stem)
        written += [png, svg]
        if place < DETAILED:
            label = f"Spectrum of {s.name}: effective rank {s.effective_rank:.1f}"
            element = for_page(svg.read_text(encoding="utf-8"), f"m{place}", label)
            details.append(Detail(s, Markup(element)))  # noqa: S704
        phases.advance(place + 1)
    maps = []
    for place, (name, title, words) in enumerate(MEASURES):
        figure = overview(spectra, name)
        png, svg = _save(figure, out / "figures" / name)
        written += [png, svg]
        element = for_page(svg.read_text(encoding="utf-8"), f"map-{name}", f"{title}. {words}")
        maps.append((title, words, Markup(element)))  # noqa: S704
        phases.advance(len(spectra) + place + 1)
    return _Pictures(written, details, maps)


def _write(
    spectra: Sequence[Spectrum], out: Path, real: Mapping[str, Array], pictures: _Pictures
) -> list[Path]:
    _write_table(spectra, real, out / "spectra.parquet")
    write_json(out / "snr.json", snr_table(spectra))
    page = _page(spectra, pictures.maps, pictures.details)
    write_text(out / "spectra.html", page)
    own = [out / "spectra.html", out / "spectra.parquet", out / "snr.json"]
    return [*own, *pictures.files]


def _save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    png, svg = (stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".svg"))
    save(figure, png, svg)
    return png, svg


def _write_table(spectra: Sequence[Spectrum], real: Mapping[str, Array], path: Path) -> None:
    rows = []
    for s in spectra:
        own = real.get(s.name)
        row = s.facts() | {"cosine_random": random_cosines(s.values).tolist()}
        rows.append(row | {"cosine_real": None if own is None else own.tolist()})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    write_bytes(path, sink.getvalue())


def _page(
    spectra: Sequence[Spectrum],
    maps: Sequence[tuple[str, str, Markup]],
    details: Sequence[Detail],
) -> str:
    here = files("search.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string((here / "spectra.html.j2").read_text(encoding="utf-8"))
    return page.render(
        spectra=spectra,
        maps=maps,
        details=details,
        models=sorted({model_name(s.model) for s in spectra}),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup((here / "report.js").read_text(encoding="utf-8")),  # noqa: S704
        version=version("laser-search"),
    )


def _values(axes: Axes, spectrum: Spectrum) -> None:
    ranks = np.arange(1, len(spectrum.values) + 1)
    axes.set(title="singular values", xlabel="rank")
    positive = spectrum.values > spectrum.values[0] * 1e-9
    if not positive.any():
        return  # the zero matrix has no place on a logarithmic axis
    axes.plot(ranks[positive], spectrum.values[positive], color=GAIN)
    for rule, colour, style in (("marchenko-pastur", LOSS, "--"), ("laser-rmt", MUTED, ":")):
        axes.axhline(spectrum.threshold(rule), color=colour, linestyle=style, linewidth=1.1)
    axes.set_yscale("log")
    narrow = spectrum.values[0] < 200 * spectrum.values[positive].min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=9))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _curve(axes: Axes, ranks: Array, values: Array, title: str, label: str) -> None:
    axes.plot(ranks, values, color=GAIN)
    axes.set(title=title, xlabel=label)
    axes.set_ylim(bottom=0)


def _histogram(axes: Axes, spectrum: Spectrum) -> None:
    values = spectrum.values
    bins = min(60, max(12, len(values) // 6))
    axes.hist(values, bins=bins, density=bool(values[0] > 0), color=SERIES[0], alpha=0.35)
    at = np.linspace(0, float(values[0]), 400)
    axes.plot(at, spectrum.bulk(at), color=INK, linewidth=1.2, label="noise alone")
    mp, rmt = spectrum.threshold("marchenko-pastur"), spectrum.threshold("laser-rmt")
    axes.axvline(mp, color=LOSS, linestyle="--", linewidth=1.1, label="edge of noise")
    axes.axvline(rmt, color=MUTED, linestyle=":", linewidth=1.3, label="laserRMT")
    axes.set(title="histogram", xlabel="singular value", yticks=[])
    axes.legend(loc="upper right", fontsize=7)


def _facts(axes: Axes, s: Spectrum) -> None:
    axes.set_axis_off()
    lines = [
        ("matrix", s.name),
        ("shape", f"{s.shape[0]} × {s.shape[1]}"),
        ("numerical rank", f"{s.numerical_rank}"),
        ("effective rank", f"{s.effective_rank:.1f}"),
        ("stable rank", f"{s.stable_rank:.2f}"),
        ("above edge", f"{s.kept('marchenko-pastur')}"),
        ("above laserRMT", f"{s.kept('laser-rmt')}"),
        ("signal / noise", f"{s.signal_to_noise():.3g}"),
    ]
    for place, (name, value) in enumerate(lines):
        y = 0.95 - place * 0.125
        axes.text(0.02, y, name, color=MUTED, va="center", transform=axes.transAxes)
        axes.text(0.98, y, value, va="center", ha="right", transform=axes.transAxes)


def _measure(s: Spectrum, name: str) -> float:
    if name == "signal_to_noise":
        return s.signal_to_noise()
    if name == "excess":
        return float(s.kept("marchenko-pastur"))
    return float(getattr(s, name))


def _ref(name: str) -> MatrixRef | None:
    try:
        return MatrixRef.parse(name)
    except InputError:
        return None


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
