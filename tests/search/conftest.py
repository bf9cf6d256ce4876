from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import StudyConfig, parse_config
from search.space import Space
from search.study.identity import Identity
from search.study.study import Study
from search.weights.refs import MatrixRef

LAYERS, TYPES, FULL = range(4), ("fc_in", "fc_out"), 64
REFS = tuple(MatrixRef(layer, kind) for layer in LAYERS for kind in TYPES)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., StudyConfig]:
    def make(storage: str | None = None, rho: object = None, **search: object) -> StudyConfig:
        space = {"max_interventions": 2}
        if rho is not None:
            space["rho"] = rho
        return parse_config(
            {
                "model": {"path": "nowhere"},
                "task": {"name": "jsonl"},
                "space": space,
                "search": {"trials": 30, **search},
                "storage": storage,
            },
            "test",
        )

    return make


IDENTITY = Identity("study-under-test", "2026-01-01", {}, "w", "e")


@pytest.fixture
def open_study(make_config: Callable[..., StudyConfig]) -> Callable[..., Study]:
    def make(
        folder: Path, config: StudyConfig | None = None, identity: Identity = IDENTITY
    ) -> Study:
        folder.mkdir(exist_ok=True)
        config = config or make_config()
        rho = config.space.rho
        space = Space(REFS, tuple(rho), config.space.max_interventions)
        return Study(folder, identity, config, space, dict.fromkeys(REFS, FULL))

    return make
