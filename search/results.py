"""A study in Python: its trials as pandas or Arrow, its figures as objects.

    from search.results import Study

    study = Study.open("my-study")
    study.trials_frame().nlargest(5, "score")
    study.heat_map().savefig("heat-map.png")

Nothing here writes to the study, which may still be running; `reload` reads it again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from search.budget import Budget
from search.cuts.composition import Composition
from search.report import budgets, maps, plots
from search.report.content import gather, winning_cuts
from search.report.frames import interventions_frame, trials_frame
from search.report.html import render
from search.report.notebook import ShownVerdict, as_html, print_study, study_line
from search.report.views import draw, of_view
from search.study.outcomes import FOLDER
from search.study.study_record import StudyRecord
from search.study.summary import Summary
from search.study.trials import TrialRecord
from search.study.verdict import Verdict
from tasks.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Study"]


class Study:
    """A study read from its folder. A driver writes a `DrivenStudy`."""

    def __init__(self, record: StudyRecord) -> None:
        """Use `open`."""
        self.record = record
        self._trials: pd.DataFrame | None = None
        self._cuts: pd.DataFrame | None = None

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> Study:
        """Read the study in `folder`. Raises InputError if there is none."""
        return Study(StudyRecord.read(Path(folder)))

    def reload(self) -> Study:
        """Read the study's folder again."""
        return Study.open(self.record.folder)

    @property
    def summary(self) -> Summary:
        """Counts, rate, baseline, best trial."""
        return self.record.summary

    @property
    def best(self) -> TrialRecord | None:
        """The best evaluated trial on validation, whether it beats the baseline or not."""
        return self.record.summary.best

    @property
    def composition(self) -> Composition:
        """The winner's cuts, else those of the best trial; empty without trials."""
        return Composition(tuple(winning_cuts(self.record)))

    @property
    def verdict(self) -> Verdict | None:
        """Baseline and winner on validation and test; None until test is scored."""
        found = gather(self.record).verdict
        return None if found is None else ShownVerdict.of(found, self.summary.objective)

    def __repr__(self) -> str:
        """The study in one line."""
        return f"<Study {study_line(self.record)}>"

    def _repr_html_(self) -> str:
        return as_html(lambda console: print_study(console, self.record, self.verdict))

    def trials_frame(self) -> pd.DataFrame:
        """One row per trial; see `search.report.frames.trials_frame`."""
        if self._trials is None:
            self._trials = trials_frame(self.record.trials)
        return self._trials.copy()

    def trials_table(self) -> pa.Table:
        """`trials_frame` as an Arrow table."""
        return pa.Table.from_pandas(self.trials_frame(), preserve_index=False)

    def interventions_frame(self) -> pd.DataFrame:
        """One row per cut matrix of every complete evaluation, with its trial's score."""
        if self._cuts is None:
            self._cuts = interventions_frame(self.record.trials, self._baseline())
        return self._cuts.copy()

    def outcomes_frame(self, evaluation: str) -> pd.DataFrame:
        """One row per question of one evaluation, such as ``trial-00012`` or ``baseline-test``.

        Raises InputError if the study has no such evaluation.
        """
        path = self.record.folder / FOLDER / f"{evaluation}.parquet"
        if not path.is_file():
            known = sorted(p.stem for p in path.parent.glob("*.parquet"))
            raise InputError(
                f"{self.record.folder} has no outcomes of {evaluation!r}; it has "
                f"{', '.join(known[:4])}{' and others' if len(known) > 4 else ''}"
            )
        return pd.read_parquet(path)

    def heat_map(self, rho: float | None = None, view: str = "alone") -> Figure:
        """Map the effect of cuts by layer and type, for all fractions kept or for `rho`.

        `view`: ``alone``, the score of the cut alone; ``gain``, its mean gain over the same
        composition without it; ``best``, the best of all trials with this cut. Raises InputError.
        """
        cuts = self.interventions_frame()
        own = of_view(cuts if rho is None else cuts[cuts["rho"] == rho], view)
        self._need(own)
        return draw(own, view, self._base(cuts), row="row", column="column")

    def reduction_map(self, kind: str, view: str = "alone") -> Figure:
        """Map the effect of cuts by layer and fraction kept, for the matrices of one type."""
        cuts = self.interventions_frame()
        own = of_view(cuts[(cuts["column"] == kind) & cuts["rho"].notna()], view)
        self._need(own)
        return draw(own, view, self._base(cuts), row="row", column="rho", across="ρ")

    def history(self) -> Figure:
        """Plot the score of each trial, and the best so far."""
        self._need(self.trials_frame())
        return plots.history(self.trials_frame(), self._baseline())

    def score_by_rho(self) -> Figure:
        """Plot the best score against the fraction of rank kept, by type and layer."""
        self._need(self.interventions_frame())
        return plots.score_by_rho(self.interventions_frame(), self._baseline())

    def parallel(self) -> Figure:
        """Plot parallel coordinates of interventions, layer, type and rank."""
        self._need(self.interventions_frame())
        return plots.parallel(self.interventions_frame(), self._baseline())

    def network(self) -> Figure:
        """Draw `composition` in the network."""
        cuts = self.interventions_frame()
        self._need(cuts)
        table = maps.best_by(cuts, "row", "column")
        chosen = self.composition.interventions
        return maps.network(chosen, list(table.index), list(table.columns))

    def kept_map(self) -> Figure:
        """What each matrix keeps in `composition`, within a budget. Raises InputError."""
        figure = budgets.kept_map(self._budget, self.composition)
        if figure is None:
            raise InputError(f"{self.record.folder} has no allocation that could be shown yet")
        return figure

    def front(self) -> Figure:
        """Score against the share of parameters kept, within budgets. Raises InputError."""
        found = budgets.front_frame(self._budget, self.record.trials)
        self._need(found)
        return budgets.front(found, self._baseline())

    @property
    def _budget(self) -> Budget:
        if self.record.budget is None:
            raise InputError(f"{self.record.folder} searched no budget; see space.budget")
        return self.record.budget

    def report(self) -> str:
        """The whole report as HTML, as `laser-search report` writes it."""
        return render(self.record)

    def _baseline(self) -> float | None:
        found = self.record.summary.baseline
        return None if found is None else found.score

    def _base(self, cuts: pd.DataFrame) -> float:
        found = self._baseline()
        return float(cuts["score"].median()) if found is None else found

    def _need(self, rows: pd.DataFrame) -> None:
        if not len(rows):
            raise InputError(f"{self.record.folder} has no trial that this figure could show yet")
