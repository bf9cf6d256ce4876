"""Commands on presets: their list, and the check of one against its published figures."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import typer

from search.options import JsonFlag
from search.phases import reporting
from search.presets import PRESETS, Preset, get_preset
from tasks.errors import InputError

if TYPE_CHECKING:
    from search.model import DType

FREE = ("preset", "model", "data", "data_revision", "revision", "factors", "products", "dtype")
"""Options of `evaluate` that may be given beside --preset; all others are what the preset says."""


def presets(as_json: JsonFlag = False) -> None:
    """List published results by name: model, task, what was cut, before and after.

    `init --preset NAME` writes the study that searches it, `evaluate --preset NAME` checks it
    against the published figures, `cut --preset NAME` writes the published cut as a model. Three
    results were published without their cut: `init` and `evaluate` take them, `cut` does not.

    Example: laser-search presets --json
    """
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in PRESETS], indent=2))
        return
    rows = [(one.name, one.model or "any", _cut(one), one.published) for one in PRESETS]
    header = ("preset", "model", "cut", "published")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        typer.echo(
            "  ".join(f"{x:<{width}}" for x, width in zip(row, widths, strict=True)).rstrip()
        )


def _cut(preset: Preset) -> str:
    """What was cut, in a few words."""
    if not preset.interventions:
        return "not published; init searches it"
    first, *others = preset.interventions
    return f"{first} and {len(others)} more" if others else first


def evaluate_preset(
    context: typer.Context,
    name: str,
    *,
    model: str | None,
    data: str | None,
    data_revision: str | None,
    revision: str | None,
    factors: str,
    products: Literal["exact", "svd-lowrank"],
    dtype: DType,
    as_json: bool,
) -> None:
    """Score a preset's model before and after its cut, and print both beside what was published.

    `model`, `data`: other copies of the preset's own. Where the cut was not published, the model
    alone is scored. Raises InputError if an option says what the preset says.
    """
    known = get_preset(name)
    _check_options(context, FREE)
    with reporting() as phases:
        phases.enter("loading the program")
        from search.model import ModelSource
        from search.sections import SplitConfig, TaskConfig
        from search.standalone import CutRequest, evaluate_compositions

        chosen: Any = known.dtype if dtype == "auto" else dtype
        paper = known.protocol == "paper"
        found = evaluate_compositions(
            source=ModelSource(known.checked_model(model), revision, known.head, chosen),  # type: ignore[arg-type]
            task=TaskConfig(
                name=known.task,
                data=data,
                revision=data_revision,
                scoring=known.scoring,  # type: ignore[arg-type]
            ),
            part="test" if paper else "all",  # the paper's figures are those of the last 80 %
            split=SplitConfig(validation=0.2, protocol=known.protocol),  # type: ignore[arg-type]
            cuts=CutRequest(known.interventions, None, products, "named"),
            factors=factors,
            phases=phases,
        )

    from search.preset_check import check_published

    rows = check_published(known, found.scores)
    if as_json:
        checks = [asdict(row) | {"agrees": row.agrees} for row in rows]
        facts = found.to_json() | {"preset": known.to_json(), "checks": checks}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{known.name}: {known.about}; published {known.published}")
    found.print()
    for row in rows:
        typer.echo(row.sentence())
    if not known.interventions:
        typer.echo(
            "after: not scored, because the published result does not say which matrices were cut"
        )


def _check_options(context: typer.Context, free: Collection[str]) -> None:
    """Refuse options of the command line that would change what the preset says."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in (*free, "as_json"):
            raise InputError(
                f"--{name.replace('_', '-')} and --preset both define the evaluation; use only one "
                "of them"
            )
