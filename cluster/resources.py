"""How many workers a cluster holds and what each of them takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search.outline import PROCESS_BYTES, size_text
from search.sections import ClusterConfig
from tasks.errors import InputError

MAX_CPU_WORKERS = 8
"""Workers without GPUs on one node, unless the configuration says otherwise: each holds the
model."""

REFRESH_S = 2.0
"""How soon a node that joins is noticed."""


@dataclass(frozen=True)
class Resources:
    """`workers` actors, each with `cpus` and `gpus` by Ray's count and `threads` for torch."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def divide(
    config: ClusterConfig, nodes: Sequence[Mapping[str, float]], model_bytes: int = 0
) -> Resources:
    """Divide what Ray says that each living node has; a worker never spans nodes.

    `model_bytes`: of the weights, which every worker without a GPU holds in the node's memory; as
    many as fit into it, but for a number that was asked for. Raises InputError if no worker fits.
    """
    cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    gpus = max((float(node.get("GPU", 0)) for node in nodes), default=0.0)
    asked = config.gpus_per_trial
    per_trial = (1.0 if gpus else 0.0) if asked == "auto" else float(asked)
    if per_trial > 1 and per_trial != int(per_trial):
        raise InputError(
            f"cluster.gpus_per_trial is {per_trial:g}; a worker can use a fraction of one GPU "
            "or several whole GPUs"
        )
    if per_trial > gpus:
        most = f"the cluster has {gpus:g} GPUs" if len(nodes) < 2 else f"no node has over {gpus:g}"
        raise InputError(
            f"cluster.gpus_per_trial is {per_trial:g}, but {most}; use auto or 0 to run on CPUs"
        )
    fitting = sum(_fitting(node, per_trial, model_bytes) for node in nodes)
    wanted = config.max_concurrent
    workers = max(1, fitting if wanted == "auto" else min(wanted, fitting if per_trial else cpus))
    smallest = min((int(node["CPU"]) for node in nodes if node.get("CPU")), default=1)
    share = max(1, min(cpus // workers, smallest))
    # A worker claims one CPU, not its share: claiming all would leave none for computing factors.
    return Resources(workers, 1.0, per_trial, share)


def _fitting(node: Mapping[str, float], per_trial: float, model_bytes: int) -> int:
    cpus, gpus = int(node.get("CPU", 0)), float(node.get("GPU", 0))
    if not per_trial:
        room = node.get("memory")
        models = cpus if room is None else int(room // (model_bytes + PROCESS_BYTES))
        return min(cpus, MAX_CPU_WORKERS, models)
    return int(gpus // per_trial) if per_trial >= 1 else int(gpus) * int(1 / per_trial)


def crowded(shares: Resources, nodes: Sequence[Mapping[str, float]], model_bytes: int) -> list[str]:
    """Sentences on workers that the memory of the nodes does not hold; none where it does."""
    if shares.gpus or not all("memory" in node for node in nodes):
        return []
    each = model_bytes + PROCESS_BYTES
    fitting = sum(int(node["memory"] // each) for node in nodes)
    if shares.workers <= fitting:
        return []
    most = size_text(max((node["memory"] for node in nodes), default=0))
    advice = f"set cluster.max_concurrent to {fitting}" if fitting else "use more memory"
    return [
        f"a worker takes {size_text(each)} for the model alone, and {shares.workers} do not fit "
        f"into memory, of which {most} are free; {advice}, or the system may end them"
    ]


def living_nodes() -> list[Mapping[str, float]]:
    """The resources of every node that Ray knows to live."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Capacity:
    """How many workers the cluster holds now, as nodes join and leave."""

    def __init__(
        self,
        config: ClusterConfig,
        nodes: Callable[[], Sequence[Mapping[str, float]]] = living_nodes,
        clock: Callable[[], float] = time.monotonic,
        model_bytes: int = 0,
    ) -> None:
        """`nodes` is asked at most every REFRESH_S seconds; `model_bytes`: see `divide`."""
        self._config = config
        self._model_bytes = model_bytes
        self._nodes = nodes
        self._clock = clock
        self._asked_at = -REFRESH_S
        self._workers = 1

    def __call__(self) -> int:
        """At least 1, so that a study waits for nodes when all that fit have left."""
        if (now := self._clock()) - self._asked_at >= REFRESH_S:
            self._asked_at = now
            try:
                self._workers = divide(self._config, self._nodes(), self._model_bytes).workers
            except InputError:
                self._workers = 1
        return self._workers
