"""How many workers a cluster holds and what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search.config import ClusterConfig
from tasks.errors import InputError

MAX_CPU_WORKERS = 8
"""Workers without GPUs, unless the configuration says otherwise: each holds the model."""


@dataclass(frozen=True)
class Resources:
    """`workers` actors, each with `cpus` and `gpus` by Ray's count and `threads` for torch."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def divide(config: ClusterConfig, available: Mapping[str, float]) -> Resources:
    """Divide what Ray says is `available`. Raises InputError if no worker fits."""
    cpus = int(available.get("CPU", 1))
    gpus = float(available.get("GPU", 0))
    asked = config.gpus_per_trial
    per_trial = (1.0 if gpus else 0.0) if asked == "auto" else float(asked)
    if per_trial > 1:
        raise InputError(
            f"cluster.gpus_per_trial is {per_trial:g}; a worker uses one GPU or a fraction of it"
        )
    if per_trial > gpus:
        raise InputError(
            f"cluster.gpus_per_trial is {per_trial:g}, but the cluster has {gpus:g} GPUs; "
            "use auto or 0 to run on CPUs"
        )
    fitting = int(gpus) * int(1 / per_trial) if per_trial else min(cpus, MAX_CPU_WORKERS)
    wanted = config.max_concurrent
    workers = max(1, fitting if wanted == "auto" else min(wanted, fitting if per_trial else cpus))
    share = max(1, cpus // workers)
    # A worker claims one CPU, not its share: claiming all would leave none for computing factors.
    return Resources(workers, 1.0, per_trial, share)
