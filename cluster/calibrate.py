"""Calibration before the factors: one Ray task, by which the whole cluster is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.orphan import end_with
from cluster.precompute import CHECK_S, answers_of
from cluster.resources import Resources
from search.calibration.calibration import Calibration
from search.cuts.refs import MatrixRef
from search.locations import absolute_location
from search.study.lock import Holder
from search.weights.moments import SecondMoment


def calibrate_here(
    calibration: Calibration, root: str, shares: Resources, driver: Holder | None
) -> dict[MatrixRef, SecondMoment]:
    """Measure in this process, on its GPU if it has one. Raises InputError."""
    import torch

    if driver is not None:
        end_with(driver)
    torch.set_num_threads(shares.threads)
    device = "cuda" if shares.gpus and torch.cuda.is_available() else "cpu"
    return calibration.run(root, device)


def calibrate(
    calibration: Calibration,
    root: str,
    shares: Resources,
    check: Callable[[], None] = lambda: None,
) -> dict[MatrixRef, SecondMoment]:
    """Have the second moments in the cache at `root`, by one task of the Ray that runs.

    A killed run is taken up at the group of inputs where it was. `check` is called several times a
    second; what it raises ends the wait. Raises InputError.
    """
    import ray  # here, for Ray reads its settings when it is imported

    task = ray.remote(calibrate_here).options(
        num_cpus=1, num_gpus=min(1.0, shares.gpus), max_retries=3
    )
    place = absolute_location(root)
    done: list[Any] = []
    pending = [task.remote(calibration, place, shares, Holder.here())]
    while not done:
        check()
        done, pending = ray.wait(pending, timeout=CHECK_S)
    found: dict[MatrixRef, SecondMoment]
    (found,) = answers_of(done)
    return found
