from __future__ import annotations

import pytest

from cluster.resources import REFRESH_S, Capacity, crowded, divide
from search.sections import ClusterConfig
from tasks.errors import InputError

GIB = 2**30


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


@pytest.mark.parametrize(
    ("config", "available", "model_gib", "expected"),
    [
        ({}, {"CPU": 8, "memory": 20 * GIB}, 13.5, 1),
        ({}, {"CPU": 8, "memory": 20 * GIB}, 4.5, 4),
        ({}, {"CPU": 8, "memory": 20 * GIB}, 0.1, 8),
        ({}, {"CPU": 8, "memory": 8 * GIB}, 13.5, 1),
        ({}, {"CPU": 8}, 13.5, 8),
        ({"max_concurrent": 3}, {"CPU": 8, "memory": 20 * GIB}, 13.5, 3),
        ({}, {"CPU": 8, "GPU": 2, "memory": 20 * GIB}, 13.5, 2),
    ],
)
def test_models_on_cpus_fit_into_memory(config, available, model_gib, expected) -> None:
    size = int(model_gib * GIB)
    assert divide(ClusterConfig(**config), [available], size).workers == expected
    capacity = Capacity(ClusterConfig(**config), lambda: [available], model_bytes=size)
    assert capacity() == expected


def test_workers_that_memory_does_not_hold_are_said_with_the_remedy() -> None:
    nodes = [{"CPU": 8, "memory": 20 * GIB}]
    size = 9 * GIB
    assert crowded(divide(ClusterConfig(), nodes, size), nodes, size) == []
    three = divide(ClusterConfig(max_concurrent=3), nodes, size)
    (said,) = crowded(three, nodes, size)
    assert "3 do not fit into memory, of which 21.5 GB are free" in said
    assert "set cluster.max_concurrent to 2" in said
    small = [{"CPU": 8, "memory": 8 * GIB}]
    (said,) = crowded(divide(ClusterConfig(), small, size), small, size)
    assert "1 do not fit" in said and "use more memory" in said
    assert crowded(three, [{"CPU": 8}], size) == []


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
