"""A study's jobs on Ray Tune's workers, until there are none left."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from typing import Any

from ray import tune

from cluster.resources import Capacity
from cluster.tune_search import StudyScheduler, StudySearch
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
    try:
        with watchdog:
            tune.run(
                tune.with_resources(trainable, dict(each)),
                name="tune",
                search_alg=search,
                scheduler=StudyScheduler(search, study),
                callbacks=[watchdog],
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
        shutil.rmtree(scratch.parent, ignore_errors=True)


def _trial_name(trial: object) -> str:
    return str(getattr(trial, "trial_id", trial))
