"""Draws the README's pictures from the study that `laser-search demo` leaves.

python docs/make_demo_pictures.py laser-demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.report import maps
from search.report.style import save
from search.results import Study

PICTURES = Path(__file__).parent / "pictures"


def main(folder: str) -> None:
    """Write the heat map of every matrix and fraction, and the course of the search."""
    study = Study.open(folder)
    cuts, baseline = study.interventions_frame(), study.summary.baseline
    if baseline is None:
        raise SystemExit(f"{folder} has no baseline yet; let the demo end")
    table = maps.best_by(cuts, "matrix", "rho")
    figure = maps.heat_map(table, baseline.score, across="ρ, fraction of the rank kept", down="")
    PICTURES.mkdir(exist_ok=True)
    save(figure, PICTURES / "demo-heat-map.png")
    save(study.history(), PICTURES / "demo-history.png")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "laser-demo")
