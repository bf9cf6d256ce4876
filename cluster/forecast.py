"""The workers that a launch on this machine would have, without starting Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import torch

from cluster.resources import crowded, divide
from search.forecast import Workers
from search.sections import ClusterConfig


def workers_here(config: ClusterConfig, model_bytes: int = 0) -> Workers:
    """As Ray would divide this machine; what a cluster at an address holds is not asked.

    `model_bytes`: of the weights.
    """
    cores = os.cpu_count() or 1  # as Ray counts
    gpus = torch.cuda.device_count()
    free = float(psutil.virtual_memory().available)
    node = {"CPU": float(cores), "GPU": float(gpus), "memory": free}
    shares = divide(config, [node], model_bytes)
    tight = crowded(shares, [node], model_bytes)
    device = "cpu" if not shares.gpus else "cuda" if shares.gpus <= 1 else "spread"
    import_s = _seconds_of_import()
    return Workers(shares.workers, shares.threads, cores, device, import_s, tuple(tight))


def _seconds_of_import() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import cluster.worker"], check=True)
    return time.perf_counter() - started
