"""The workers that a launch on this machine would have, without starting Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

from cluster.resources import divide
from search.config import ClusterConfig
from search.forecast import Workers


def workers_here(config: ClusterConfig) -> Workers:
    """As Ray would divide this machine; what a cluster at an address holds is not asked."""
    cores = os.cpu_count() or 1  # as Ray counts
    gpus = torch.cuda.device_count()
    shares = divide(config, [{"CPU": float(cores), "GPU": float(gpus)}])
    device = "cpu" if not shares.gpus else "cuda" if shares.gpus <= 1 else "spread"
    return Workers(shares.workers, shares.threads, cores, device, _seconds_of_import())


def _seconds_of_import() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import cluster.worker"], check=True)
    return time.perf_counter() - started
