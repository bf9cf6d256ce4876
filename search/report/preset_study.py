"""The study.yaml that searches a preset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.presets import Preset
from search.report.new_study import LIMIT, check_study, put_study
from tasks.metrics import PERPLEXITY

GUARD = """
guard:                 # what was published had no limit; init --unguarded leaves this out
  worse_by: {worse_by}     # the share by which the perplexity of general text may rise
  # data: wikitext2    # better than the prompts of the questions, the default; or a text file
"""


def preset_text(
    preset: Preset, file: str, model: str | None, data: str | None, worse_by: float | None = LIMIT
) -> str:
    """The file's text. `model` and `data` instead of the preset's own. Raises InputError.

    `worse_by`: the limit on general text, of presets of language models; None: they have none.
    """
    asked: dict[str, dict[str, Any]] = {
        "model": {
            "path": preset.checked_model(model),
            "head": preset.head,
            "dtype": preset.dtype,
        },
        "task": {"name": preset.task, "scoring": preset.scoring}
        | ({} if data is None else {"data": data}),
        "split": {"validation": 0.2, "protocol": preset.protocol, "seed": 0},
        "space": {
            "layers": "all",
            "matrices": list(preset.matrices),
            "rho": list(preset.rho),
            "max_interventions": preset.cuts,
        },
        "search": {"strategy": preset.strategy, "trials": preset.trials, "seed": 0},
    }
    cuts = " ".join(preset.interventions) or "not published"
    parts = "\n\n".join(_part(name, values) for name, values in asked.items())
    limited = worse_by is not None and preset.head == "causal" and preset.metric != PERPLEXITY
    guard = GUARD.format(worse_by=json.dumps(worse_by)) if limited else ""
    text = f"""\
# {preset.name}: {preset.about}.
# Published: {preset.published}; cut: {cuts}.
# Check and start it:  laser-search launch {" ".join(file.split())}
# Every key: docs/configuration.md. Relative paths are relative to this file.

{parts}
{guard}
factors: ./factors     # SVDs that all studies share: a folder, or a URL such as s3://bucket/prefix
"""
    check_study(text, file)
    return text


def write_preset_study(
    preset: Preset,
    path: Path,
    model: str | None,
    data: str | None,
    worse_by: float | None = LIMIT,
    *,
    replace: bool = False,
) -> None:
    """Durably write a study.yaml that `laser-search launch` accepts. Raises InputError."""
    put_study(lambda: preset_text(preset, path.name, model, data, worse_by), path, replace=replace)


def _part(name: str, values: Mapping[str, Any]) -> str:
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([f"{name}:", *lines])
