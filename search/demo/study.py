"""The demo's study: the shipped model and questions, searched as any other."""

from __future__ import annotations

from pathlib import Path

from search.config import StudyConfig, parse_config

HERE = Path(__file__).parent


def demo_config(folder: Path, trials: int = 200) -> StudyConfig:
    """The configuration of a demo study in `folder`: half of the names validate, half test."""
    return parse_config(
        {
            "model": {"path": str(HERE / "model")},
            "task": {"name": "jsonl", "data": str(HERE / "questions.jsonl")},
            "split": {"validation": 0.5},
            "search": {"trials": trials},
            "factors": str(folder.resolve() / "factors"),
        },
        "demo",
    )
