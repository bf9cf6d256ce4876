"""Ray Tune over a study: precompute, search, score on test. The same for a start and a resume."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.resources import Resources, divide
from cluster.view import View
from search.config import ClusterConfig, StudyConfig, read_config, write_config
from search.evaluation.kept import Scratch
from search.plan import Plan, make_plan
from search.strategies.base import Setting
from search.strategies.registry import WANT_SPECTRA, make_strategy
from search.study.identity import FILE as IDENTITY_FILE
from search.study.identity import (
    Identity,
    World,
    digest_checkpoint,
    digest_examples,
    digest_settings,
    digest_weights,
)
from search.study.lock import driver_lock
from search.study.questions import write_questions
from search.study.record import CONFIG
from search.study.storage import mend_journal, open_storage
from search.study.study import Study
from search.study.summary import Summary, summarise
from search.study.verdict import Verdict, conclude
from search.weights.remote import check_factors, open_factors
from search.weights.spectra import Spectrum
from tasks.errors import InputError

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Tune's loggers, checkpoints and printing cost more than a trial and say nothing that the study
does not. Set before Ray is imported."""

LOCAL_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For a Ray of our own: all its servers listen on 127.0.0.1. The name speaks of the systems where
this is Ray's default; elsewhere they would listen on every interface."""

OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class End:
    """How a driver's run ended: the study's state, and its verdict if test was scored."""

    summary: Summary
    verdict: Verdict | None
    stopped: str | None


def launch(config: StudyConfig, folder: Path, view: View) -> End:
    """Start a study in `folder`. Raises InputError, before Ray starts where that is possible."""
    if (folder / IDENTITY_FILE).exists():
        raise InputError(
            f"{folder} already holds a study; continue it with laser-search resume {folder} "
            "or give another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the study a folder with --out")
    check_factors(config.factors)
    plan = make_plan(config)
    folder.mkdir(parents=True, exist_ok=True)
    with driver_lock(folder):
        open_storage(folder, config.storage)  # a database that does not answer is said at once
        write_config(config, folder / CONFIG)
        return _drive(plan, folder, view)


def resume(folder: Path, view: View) -> End:
    """Continue a study to the number of trials that it asks for. Raises InputError."""
    Identity.read(folder)
    config = read_config(folder / CONFIG)
    check_factors(config.factors)
    plan = make_plan(config)
    with driver_lock(folder):
        mend_journal(folder)
        return _drive(plan, folder, view)


def _drive(plan: Plan, folder: Path, view: View) -> End:
    for notice in plan.notices:
        view.note(f"note: {notice}")
    with ray_session(plan.config.cluster), view:
        import ray

        shares = divide(plan.config.cluster, ray.cluster_resources())
        identity, keys = _identify(plan, folder, shares, view)
        write_questions(folder, plan.split)
        strategy = make_strategy(plan.config.search, _setting(plan, keys))
        study = Study(
            *(folder, identity, plan.config, plan.space, plan.max_ranks, plan.objective, strategy),
            shapes={matrix.ref: matrix.shape for matrix in plan.matrices},
        )
        study.on_change = lambda: view.study(lambda: _summary(study))
        _search(plan, study, shares)
        view.study(lambda: _summary(study), force=True)
    for notice in _summary(study).shortfall(plan.config.search.trials):
        view.note(f"note: {notice}")
    # A worker that Ray stopped could not tidy up: what nobody uses any more goes now.
    with suppress(OSError):
        Scratch(identity.study_id, plan.config.reuse.folder).close()
    verdict = None
    if not study.stopped:
        chosen = study.chosen()
        verdict = conclude(
            *(folder, identity, chosen.winner, plan.split, plan.objective),
            infeasible=_summary(study).infeasible,
            finalists=chosen.finalists,
        )
    return End(_summary(study), verdict, study.stopped)


def _setting(plan: Plan, keys: Mapping[str, str]) -> Setting:
    """What the strategy knows before the first trial; `keys` of the factors by address."""
    search = plan.config.search
    spectra = None
    if search.strategy in WANT_SPECTRA:
        cache = open_factors(plan.config.factors)
        spectra = {
            m.ref: Spectrum(
                *(str(m.ref), plan.source.path, m.module, m.shape),
                np.asarray(cache.spectrum(keys[str(m.ref)]), dtype=np.float64),
            )
            for m in plan.searched
        }
    return Setting(
        *(plan.space, plan.max_ranks, search.seed, search.objectives),
        spectra=spectra,
        threshold=search.threshold,
    )


def _identify(
    plan: Plan, folder: Path, shares: Resources, view: View
) -> tuple[Identity, Mapping[str, str]]:
    """Compute missing factors; then begin the study, or check that its world is unchanged.

    Also returns the factors' keys by address.
    """
    from cluster.precompute import Storing, precompute

    every_rank = plan.config.search.strategy in WANT_SPECTRA  # the space says nothing of ranks then
    keys = precompute(
        plan.source,
        plan.searched,
        plan.config.factors,
        view.factors,
        gpus=min(1.0, shares.gpus),
        threads=shares.threads,
        storing=Storing() if every_rank else Storing.for_space(plan.space),
    )
    world = World(
        digest_weights(keys),
        digest_checkpoint(plan.source.folder),
        digest_examples(plan.split.validation, plan.split.test, plan.split.confirm),
        digest_settings(plan.config),
    )
    if (folder / IDENTITY_FILE).exists():
        identity = Identity.read(folder)
        identity.check(world)
        return identity, keys
    identity = Identity.new(world)
    identity.write(folder)
    return identity, keys


def _search(plan: Plan, study: Study, shares: Resources) -> None:
    from ray import tune

    from cluster.tune_search import StudyScheduler, StudySearch
    from cluster.worker import Blueprint, StudyWorker

    blueprint = Blueprint(
        plan.config.model_copy(update={"storage": None}),  # workers need no database password
        str(study.folder.resolve()),
        study.identity.study_id,
        tuple(plan.split.validation),
        tuple(plan.split.test),
        plan.objective,
        shares.threads,
        "cuda" if shares.gpus else "cpu",
        frozenset(plan.space.matrices),
        shares.workers,
        tuple(plan.split.confirm),
    )
    search = StudySearch(study)
    # Tune insists on a folder of its own; it holds nothing of value and goes when the run ends.
    scratch = study.folder.resolve() / ".ray" / uuid.uuid4().hex[:8]
    worker = tune.with_resources(
        tune.with_parameters(StudyWorker, blueprint=blueprint),
        {"cpu": shares.cpus, "gpu": shares.gpus},
    )
    try:
        tune.Tuner(
            worker,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=StudyScheduler(search, study),
                num_samples=-1,
                max_concurrent_trials=shares.workers,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch.parent, ignore_errors=True)


def _trial_name(trial: object) -> str:
    return str(getattr(trial, "trial_id", trial))


def _summary(study: Study) -> Summary:
    return summarise(
        *(study.trials(), study.baseline, study.budget, study.objective),
        ended=study.ended,
        chosen=study.chosen(),
    )


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """A local Ray of our own, or the cluster at the configured address."""
    settings = SETTINGS if config.address else SETTINGS | LOCAL_SETTINGS
    os.environ.update({k: v for k, v in settings.items() if k not in os.environ})
    import ray

    options: dict[str, object] = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.address is None:
        # Without an address Ray would attach to any cluster that happens to run on this machine.
        ray.init(
            "local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **options,
        )
    else:
        import cluster
        import search
        import tasks

        try:
            ray.init(
                config.address, runtime_env={"py_modules": [tasks, search, cluster]}, **options
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"cluster.address {config.address!r} does not answer: "
                f"{str(error).splitlines()[0]}; start Ray there or use null for a local one"
            ) from None
    try:
        yield
    finally:
        ray.shutdown()
