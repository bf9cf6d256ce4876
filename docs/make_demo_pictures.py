"""Draws the README's pictures from studies of the demo: every cut alone, the course of a search.

python docs/make_demo_pictures.py GRID_STUDY [TPE_STUDY]

The first has `strategy: grid` and `max_interventions: 1`, 144 trials; the second, 300 of `tpe`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.report.style import save
from search.report.views import draw, of_view
from search.results import Study

PICTURES = Path(__file__).parent / "pictures"


def main(grid: str, course: str | None = None) -> None:
    """Write the heat map of every matrix and fraction cut alone, and the course of the search."""
    study = Study.open(grid)
    baseline = study.summary.baseline
    if baseline is None:
        raise SystemExit(f"{grid} has no baseline yet; let the study end")
    cuts = of_view(study.interventions_frame(), "alone")
    across = "ρ, fraction of the rank kept"
    figure = draw(cuts, "alone", baseline.score, row="matrix", column="rho", across=across, down="")
    PICTURES.mkdir(exist_ok=True)
    save(figure, PICTURES / "demo-heat-map.png")
    if course is not None:
        save(Study.open(course).history(), PICTURES / "demo-history.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
