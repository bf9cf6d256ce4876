"""A study's jobs on Ray Tune's workers, until there are none left."""

from __future__ import annotations

import gc
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune import registry

from cluster.resources import Capacity
from cluster.tune_search import Forgetting, StudyScheduler, StudySearch
from cluster.watchdog import Watchdog
from search.study.study import Study


def execute(study: Study, trainable: Any, each: Mapping[str, float]) -> None:
    """Run `study` on as many workers as the cluster holds, whichever nodes join or leave.

    `trainable` takes jobs as `StudyWorker` does, and `each` of its actors claims so much of Ray's
    resources.
    """
    cluster = study.config.cluster
    watchdog = Watchdog(cluster.trial_timeout_s)
    search = StudySearch(study, watchdog, Capacity(cluster))
    # Tune insists on a folder of its own; it holds nothing of value and goes when the run ends.
    scratch = study.folder.resolve() / ".ray" / uuid.uuid4().hex[:8]
    # What is there already, torch and Ray above all, stays: looking through it takes the collector
    # half a second, in which no worker gets a job.
    gc.freeze()
    try:
        with watchdog, _known_trainables():
            tune.run(
                tune.with_resources(trainable, dict(each)),
                name="tune",
                search_alg=search,
                scheduler=StudyScheduler(search, study),
                callbacks=[watchdog, Forgetting()],
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


@contextmanager
def _known_trainables() -> Iterator[None]:
    """Within, Tune keeps the trainables that it has looked up.

    Else it asks the cluster for the same one, and unpickles it, several times a trial: a fifth of
    what a trial costs the driver. Without effect where Tune's registry is another.
    """
    ours = getattr(registry, "_global_registry", None)
    if ours is None or not {"get", "contains"} <= vars(type(ours)).keys():
        yield
        return
    ask, asks = ours.get, ours.contains
    known: dict[tuple[str, str], Any] = {}

    def get(category: str, key: str) -> Any:
        if (category, key) not in known:
            known[category, key] = ask(category, key)
        return known[category, key]

    ours.get = get
    ours.contains = lambda category, key: (category, key) in known or asks(category, key)
    try:
        yield
    finally:
        del ours.get, ours.contains


def _trial_name(trial: object) -> str:
    return str(getattr(trial, "trial_id", trial))
