"""The report: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from search.budget import Budget
from search.cuts.composition import brief
from search.durable import write_text
from search.phases import duration
from search.report import budgets, maps, plots
from search.report.content import Content, gather, winning_cuts
from search.report.style import to_svg
from search.report.views import map_groups, of_view
from search.study.study_record import StudyRecord

MAX_QUOTED = 400
"""Characters of a prompt or an answer that the report shows."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its title, its SVG, and what is seen in it."""

    name: str
    title: str
    svg: Markup
    caption: str


def write_report(record: StudyRecord, path: Path) -> None:
    """Durably write the report of a study, whatever its state, as one HTML file at `path`."""
    write_text(path, render(record))


def render(record: StudyRecord) -> str:
    """The report as text. Everything that comes from data or models is escaped."""
    content = gather(record)
    here = files("search.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "quoted": _quoted, "spread": _spread}
    environment.filters["brief"] = _brief
    page = environment.from_string((here / "report.html.j2").read_text(encoding="utf-8"))
    return page.render(
        content=content,
        record=record,
        config=record.config,
        pictures=_pictures(content),
        map_groups=_map_groups(content),
        trials=content.listed.to_dict("records"),
        columns={} if content.verdict is None else content.verdict.columns,
        style=Markup((here / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup((here / "report.js").read_text(encoding="utf-8")),  # noqa: S704
        version=version("laser-search"),
    )


def _pictures(content: Content) -> dict[str, Picture]:
    """Every figure that the study has the data for, by name."""
    found: list[Picture] = []
    baseline, cuts = content.baseline, content.cuts
    verdict = content.verdict
    if verdict is not None and verdict.comparisons:
        compared = {
            part: {name: getattr(c, name) for name in ("difference", "low", "high")}
            for part, c in verdict.comparisons.items()
        }
        words = "; ".join(f"{p} {c['difference']:+.4f}" for p, c in compared.items())
        found.append(
            _picture(
                "differences",
                "Winner against baseline",
                plots.differences(compared),
                f"Change of the mean score with its 95 % interval: {words}. The search chose "
                "on validation, so only test says what to expect.",
            )
        )
    if (budget := content.record.budget) is not None:
        return {p.name: p for p in [*found, *_within(content, budget), *_trust(content)]}
    chosen = winning_cuts(content.record)
    if chosen and len(cuts):
        table = maps.best_by(cuts, "row", "column")
        found.append(
            _picture(
                "network",
                "The composition in the network",
                maps.network(chosen, list(table.index), list(table.columns)),
                f"The cut matrices of {' '.join(map(str, chosen))}; the filled part is the "
                "fraction of the rank that stays.",
            )
        )
    found += _course(content)
    if len(cuts):
        found.append(
            _picture(
                "parallel",
                "What good trials share",
                plots.parallel(cuts, baseline),
                "One line per cut matrix of a trial; blue above the baseline, orange below.",
            )
        )
    if (cuts["rho"] > 0).any():
        alone = of_view(cuts, "alone")
        own = alone if (alone["rho"] > 0).any() else cuts
        found.append(
            _picture(
                "rho",
                "Score against rank",
                plots.score_by_rho(own, baseline),
                "The score of trials that cut this matrix and nothing else, by fraction kept."
                if own is not cuts
                else "The best score of trials that cut the matrix to this fraction, whatever else "
                "they cut: no matrix was cut alone.",
            )
        )
    return {p.name: p for p in [*found, *_trust(content)]}


def _course(content: Content) -> list[Picture]:
    if not len(content.trials):
        return []
    return [
        _picture(
            "history",
            "Course of the search",
            plots.history(content.trials, content.baseline),
            "Every evaluated trial in order, the best so far, and the unedited model.",
        )
    ]


def _within(content: Content, budget: Budget) -> list[Picture]:
    """What a study within a budget shows in place of single cuts."""
    record, found = content.record, []
    bests = record.summary.by_share
    for share, trial in bests.items():
        figure = budgets.kept_map(budget, trial.composition)
        if figure is not None:
            name = f"kept-{share:g}".replace(".", "-")
            found.append(
                _picture(
                    name,
                    f"What each matrix keeps within {share:.0%}",
                    figure,
                    f"Per cent of its parameters, in the best trial ({trial.number}) of this "
                    "budget on validation; 100 is a matrix that is not cut.",
                )
            )
    frame = budgets.front_frame(budget, record.trials)
    if len(budget.kept) > 1 and len(frame):
        found.append(
            _picture(
                "front",
                "Score against size",
                budgets.front(frame, content.baseline),
                "The best trial of each budget, and uniform ranks of the same size; every dot is "
                "a trial.",
            )
        )
    return found + _course(content)


def _trust(content: Content) -> list[Picture]:
    """How far the model's own probabilities can be trusted, and where the time went."""
    found = []
    sides = {side: evaluation.outcomes for side, evaluation in content.sides.items()}
    if any(o.confidence is not None for outcomes in sides.values() for o in outcomes):
        found.append(
            _picture(
                "reliability",
                "Calibration",
                plots.reliability(sides),
                f"Confidence against accuracy on {content.part}, in ten bins; on the dashed "
                "line confidence is right. Disks grow with the questions in a bin.",
            )
        )
    if sides:
        found.append(
            _picture(
                "probabilities",
                "Probability of the right answer",
                plots.probabilities(sides),
                f"The share of {content.part} questions at or below each probability: the "
                "lower the line, the surer the model of what is right.",
            )
        )
    if content.cost.parts_s:
        found.append(
            _picture(
                "time",
                "Where the time went",
                plots.time_parts(content.cost.parts_s),
                f"{duration(content.cost.worker_s)} in workers, by part.",
            )
        )
    return found


def _map_groups(content: Content) -> list[tuple[str, list[Picture]]]:
    """The heat maps to choose from, the cut alone first."""
    cuts = content.cuts
    if not len(cuts) or content.record.budget is not None:
        return []
    base = float(cuts["score"].median()) if content.baseline is None else content.baseline
    return [
        (name, [_picture(view.name, view.title, view.figure, view.words) for view in found])
        for name, found in map_groups(cuts, base)
    ]


def _picture(name: str, title: str, figure: Any, caption: str) -> Picture:
    label = f"{title}. {caption}"
    return Picture(name, title, Markup(to_svg(figure, name, label)), caption)  # noqa: S704


def _brief(row: Mapping[str, Any]) -> str:
    """A listed trial's composition as a table has room for it."""
    text, kept = row["composition"], row.get("kept")
    if not isinstance(text, str):
        return ""
    return brief(text, None if kept is None or math.isnan(kept) else kept)


def _quoted(text: Any) -> str:
    """A text from data, a long one by its end, where the question is."""
    found = "" if text is None else str(text)
    return found if len(found) <= MAX_QUOTED else f"…{found[-MAX_QUOTED:]}"


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, from all over the sequence: neighbours are often of one group."""
    return [items[len(items) * i // most] for i in range(most)] if len(items) > most else [*items]
