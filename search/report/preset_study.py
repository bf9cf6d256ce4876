"""The study.yaml that searches a preset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.presets import Preset
from search.report.new_study import check_study, put_study


def preset_text(preset: Preset, file: str, model: str | None, data: str | None) -> str:
    """The file's text. `model` and `data` instead of the preset's own. Raises InputError."""
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
    text = f"""\
# {preset.name}: {preset.about}.
# Published: {preset.published}; cut: {cuts}.
# Check and start it:  laser-search launch {" ".join(file.split())}
# Every key: docs/configuration.md. Relative paths are relative to this file.

{parts}

factors: ./factors     # SVDs that all studies share: a folder, or a URL such as s3://bucket/prefix
"""
    check_study(text, file)
    return text


def write_preset_study(
    preset: Preset, path: Path, model: str | None, data: str | None, *, replace: bool = False
) -> None:
    """Durably write a study.yaml that `laser-search launch` accepts. Raises InputError."""
    put_study(lambda: preset_text(preset, path.name, model, data), path, replace=replace)


def _part(name: str, values: Mapping[str, Any]) -> str:
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([f"{name}:", *lines])
