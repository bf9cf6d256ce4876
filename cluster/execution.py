"""A study's jobs on Ray Tune's workers, until there are none left."""

from __future__ import annotations

import gc
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ray import tune

from cluster.privates import idle_workers_kept
from cluster.resources import Capacity
from cluster.tune_search import StudyScheduler, StudySearch
from cluster.watchdog import Watchdog
from search.study.driven_study import DrivenStudy

SIDES = 2
"""Workers that are kept when all trials have begun: for the baseline and the winner on test."""


def execute(
    study: DrivenStudy,
    trainable: Any,
    each: Mapping[str, float],
    is_cut: Callable[[], bool] = lambda: False,
    model_bytes: int = 0,
) -> None:
    """Run `study` on as many workers as the cluster holds, whichever nodes join or leave.

    `trainable` takes jobs as `StudyWorker` does, and `each` of its actors claims so much of Ray's
    resources. Once `is_cut`, the run ends without waiting for what is in flight. `model_bytes`: see
    `divide`.
    """
    cluster = study.config.cluster
    watchdog = Watchdog(cluster.trial_timeout_s)
    capacity = Capacity(cluster, model_bytes=model_bytes)
    search = StudySearch(study, watchdog, capacity)
    # Tune insists on a folder of its own; it holds nothing of value and goes when the run ends.
    scratch = study.folder.resolve() / ".ray" / uuid.uuid4().hex[:8]
    # What is there already, torch and Ray above all, stays: looking through it takes the collector
    # half a second, in which no worker gets a job.
    gc.freeze()
    try:
        kept = idle_workers_kept(lambda: capacity() if study.goes_on else SIDES)
        with watchdog, kept, suppress(Cut):
            tune.run(
                tune.with_resources(trainable, dict(each)),
                name="tune",
                search_alg=search,
                scheduler=StudyScheduler(search, study),
                callbacks=[watchdog, Cutting(is_cut)],
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                storage_path=str(scratch),
                verbose=0,
                max_failures=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                raise_on_failed_trial=False,
                # Else ray:// would run this function, and the study, on the cluster.
                _remote=False,
            )
    finally:
        gc.unfreeze()
        shutil.rmtree(scratch.parent, ignore_errors=True)


class Cut(Exception):  # noqa: N818 - says what happened
    """The run ends without waiting for its trials."""


class Cutting(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Ends Tune's run at its next step once `is_cut` says so. It steps several times a second."""

    def __init__(self, is_cut: Callable[[], bool]) -> None:
        """Asked at every step."""
        self._is_cut = is_cut

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Leave Tune's loop by the way of an error, on which it ends its actors."""
        if self._is_cut():
            raise Cut

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its callbacks for a restore that is never used.
        return (tune.Callback, ())


def _trial_name(trial: object) -> str:
    return str(getattr(trial, "trial_id", trial))
