"""What a strategy is told before the first trial comes from the factors of the study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from search.config import parse_config
from search.demo.study import HERE
from search.opening import setting_of
from search.origin import WeightOrigin
from search.plan import make_plan
from search.strategies.base import History
from search.strategies.registry import make_strategy
from search.weights.factors import FactorCache


@pytest.mark.parametrize("threshold", ["laser-rmt", "marchenko-pastur"])
def test_snr_reads_the_spectra_of_the_factors(tmp_path: Path, threshold: str) -> None:
    config = parse_config(
        {
            "model": {"path": str(HERE / "model")},
            "task": {"name": "jsonl", "data": str(HERE / "questions.jsonl")},
            "search": {"strategy": "snr", "threshold": threshold},
            "factors": str(tmp_path),
        },
        "test",
    )
    plan = make_plan(config)
    origin, keys = WeightOrigin(plan.source), {}
    values = {}
    with FactorCache(tmp_path) as cache:
        for matrix in plan.searched:
            weight = origin.read(matrix)
            keys[str(matrix.ref)] = key = cache.key(weight)
            cache.ensure(weight, key, "here")
            values[matrix.ref] = torch.linalg.svdvals(weight.double()).numpy()
    setting = setting_of(plan, keys)
    for ref, expected in values.items():
        np.testing.assert_allclose(setting.spectra[ref].values, expected, rtol=1e-4, atol=1e-5)
    first = make_strategy(config.search, setting).suggest(History(plan.max_ranks, 10))
    assert first is None, "nothing is kept or reverted before the model as it is was scored"
