from __future__ import annotations

import pytest

from cluster.resources import divide
from search.config import ClusterConfig
from tasks.errors import InputError


@pytest.mark.parametrize(
    ("config", "available", "expected"),
    [
        ({}, {"CPU": 2}, (2, 0.0, 1)),
        ({}, {"CPU": 64}, (8, 0.0, 8)),
        ({}, {"CPU": 16, "GPU": 4}, (4, 1.0, 4)),
        ({"gpus_per_trial": 0.25}, {"CPU": 16, "GPU": 2}, (8, 0.25, 2)),
        ({"gpus_per_trial": 0.4}, {"CPU": 16, "GPU": 2}, (4, 0.4, 4)),
        ({"gpus_per_trial": 0.0}, {"CPU": 4, "GPU": 2}, (4, 0.0, 1)),
        ({"max_concurrent": 1}, {"CPU": 2}, (1, 0.0, 2)),
        ({"max_concurrent": 99}, {"CPU": 2}, (2, 0.0, 1)),
    ],
)
def test_workers_fill_what_there_is(config, available, expected) -> None:
    found = divide(ClusterConfig(**config), available)
    assert (found.workers, found.gpus, found.threads) == expected


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="the cluster has 0 GPUs"):
        divide(ClusterConfig(gpus_per_trial=1.0), {"CPU": 4})
    with pytest.raises(InputError, match="one GPU or a fraction"):
        divide(ClusterConfig(gpus_per_trial=2.0), {"CPU": 4, "GPU": 4})
