from __future__ import annotations

import pytest

from cluster.resources import REFRESH_S, Capacity, divide
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
        ({"gpus_per_trial": 2.0}, {"CPU": 16, "GPU": 5}, (2, 2.0, 8)),
        ({"max_concurrent": 1}, {"CPU": 2}, (1, 0.0, 2)),
        ({"max_concurrent": 99}, {"CPU": 2}, (2, 0.0, 1)),
    ],
)
def test_workers_fill_what_there_is(config, available, expected) -> None:
    found = divide(ClusterConfig(**config), [available])
    assert (found.workers, found.gpus, found.threads) == expected


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="the cluster has 0 GPUs"):
        divide(ClusterConfig(gpus_per_trial=1.0), [{"CPU": 4}])
    with pytest.raises(InputError, match="several whole GPUs"):
        divide(ClusterConfig(gpus_per_trial=1.5), [{"CPU": 4, "GPU": 4}])
    with pytest.raises(InputError, match="no node has over 2"):
        divide(ClusterConfig(gpus_per_trial=4.0), [{"CPU": 4, "GPU": 2}] * 3)


def test_a_worker_never_spans_nodes() -> None:
    nodes = [{"CPU": 8, "GPU": 3}, {"CPU": 16, "GPU": 3}, {"CPU": 4}]
    assert divide(ClusterConfig(gpus_per_trial=2.0), nodes).workers == 2
    assert divide(ClusterConfig(), nodes).workers == 6
    assert divide(ClusterConfig(gpus_per_trial=0.0), [{"CPU": 64}] * 3).workers == 24


def test_capacity_follows_the_nodes() -> None:
    nodes, now = [{"CPU": 4, "GPU": 2}], [0.0]
    capacity = Capacity(ClusterConfig(), lambda: nodes, lambda: now[0])
    assert capacity() == 2
    nodes.append({"CPU": 4, "GPU": 4})
    assert capacity() == 2, "asked again only after a while"
    now[0] += REFRESH_S
    assert capacity() == 6
    nodes.clear()
    now[0] += REFRESH_S
    assert capacity() == 1, "a study whose nodes have left waits for others"
