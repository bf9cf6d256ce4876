"""Ray Tune over a study: precompute, search, score on test. The same for a start and a resume."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

from cluster.preemption import Preemption, code_of
from cluster.resources import Resources, crowded, divide, living_nodes
from cluster.session import ray_session
from cluster.stop import StopRequest, was_asked
from cluster.view import LOADING, StudyView
from search.calibration.calibration import (
    Calibration,
    noted_calibration,
    read_calibration,
    shortfalls,
)
from search.config import StudyConfig, read_frozen, with_trials, write_config
from search.cuts.refs import MatrixRef
from search.interruption import Interrupted
from search.opening import (
    open_driven,
    storing_of,
    summary_of,
    verdict_of,
    wants_spectra,
    world_of,
)
from search.outline import Outline, factor_bytes, size_text
from search.place import check_study_place
from search.plan import Plan, make_plan
from search.reuse.activations import SharedScratch
from search.study.driven_study import DrivenStudy
from search.study.driver_log import note_begin, note_end
from search.study.identity import FILE as IDENTITY_FILE
from search.study.identity import (
    Identity,
    digest_weights,
)
from search.study.journal import mend_journal
from search.study.lock import Holder, Lease, driver_lock, hold
from search.study.storages import StorageLost, open_storage
from search.study.study_record import CONFIG, StudyRecord
from search.study.summary import Summary
from search.study.verdict import Verdict, read_result
from search.study.wall_time import WallTime
from search.weights.moments import SecondMoment
from search.weights.remote import check_factors
from tasks.errors import InputError
from tasks.inside import check_links
from tasks.parts import sizes_text
from tasks.printable import printable

if TYPE_CHECKING:
    from cluster.worker import Blueprint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class End:
    """How a driver's run ended: the study's state, and its verdict if test was scored.

    `stopped`: why it could not go on. `signal`: the number of the one that ended it before its end.
    """

    summary: Summary
    verdict: Verdict | None
    stopped: str | None
    signal: int | None = None


def interruption(folder: Path, number: int) -> tuple[int, str]:
    """Exit code and sentence of a driver that a signal, or `laser-search stop`, ended.

    A request to stop is fulfilled with this answer. `number` 0: for another reason.
    """
    begun = (folder / IDENTITY_FILE).exists()
    how = f"laser-search resume {folder}" if begun else "the same command"
    if number == 0:
        return 1, f"once it is fixed, continue with: {how}"
    if number == SIGTERM and was_asked(folder):
        return 0, f"stopped as asked; continue with: {how}"
    return code_of(number), f"interrupted; continue with: {how}"


def launch(
    config: StudyConfig,
    folder: Path,
    view: StudyView,
    address: str | None = None,
    given: Path | None = None,
) -> End:
    """Start a study in `folder`, on the Ray at `address` if given, else where `config` says.

    `given` is the file that `config` was read from. Raises InputError, before Ray starts where that
    is possible.
    """
    wall = WallTime()
    if (folder / IDENTITY_FILE).exists():
        raise InputError(
            f"{folder} already contains a study; continue it with laser-search resume {folder} "
            "or give another --out"
        )
    check_study_place(folder, given)
    check_links(folder)
    check_factors(config.factors)
    say_what_is_trusted(config)
    view.phases.enter("reading the checkpoint")
    plan = make_plan(config)
    folder.mkdir(parents=True, exist_ok=True)
    with driver_lock(folder) as lease:
        open_storage(folder, config.storage)  # a database that does not answer is said at once
        write_config(plan.config, folder / CONFIG)
        return _noted(folder, lambda: _drive(_at(plan, address), folder, view, lease, wall))


def resume(
    folder: Path,
    view: StudyView,
    address: str | None = None,
    *,
    accept_change: bool = False,
    trials: str | None = None,
) -> End:
    """Continue a study to the number of trials that it asks for. Raises InputError.

    `address`: of another Ray than the study's own. `accept_change`: also where settings or versions
    differ in a way that leaves its trials true. `trials`: a new number of them, or ``+N`` for N
    more; it is written into the frozen study.yaml.
    """
    wall = WallTime()
    Identity.read(folder)
    check_links(folder)
    config = read_frozen(folder / CONFIG)
    if trials is not None:
        config = with_trials(config, trials)
    check_factors(config.factors)
    say_what_is_trusted(config)
    view.phases.enter("reading the checkpoint")
    plan = make_plan(config)
    with driver_lock(folder) as lease:
        if notice := mend_journal(folder):
            view.note(f"note: {notice}")
        if trials is not None:
            write_config(plan.config, folder / CONFIG)
        plan = _at(plan, address)
        return _noted(folder, lambda: _drive(plan, folder, view, lease, wall, accept_change))


def say_what_is_trusted(config: StudyConfig) -> None:
    """Before code of a checkpoint runs, say that it will: the study.yaml may be a stranger's."""
    if config.model.trust_remote_code:
        sys.stderr.write(
            f"notice: model.trust_remote_code is true, so Python code that comes with "
            f"{printable(config.model.path)} runs here and on every worker, and may do whatever "
            "you may: read your files and secrets, write, use the network\n"
        )
        sys.stderr.flush()


def _noted(folder: Path, drive: Callable[[], End]) -> End:
    """Drive, and keep in the folder how it ended."""
    note_begin(folder)
    try:
        end = drive()
    except (InputError, StorageLost) as error:
        note_end(folder, str(error))
        raise
    except Interrupted:
        note_end(folder, "it was asked to stop")
        raise
    asked = "" if end.verdict else "it was asked to stop"
    note_end(folder, end.stopped or asked)
    return end


def _at(plan: Plan, address: str | None) -> Plan:
    """The plan on another Ray: ``local`` is one of our own. The frozen study.yaml keeps its own."""
    if address is None:
        return plan
    cluster = plan.config.cluster.model_copy(
        update={"address": None if address == "local" else address}
    )
    return replace(plan, config=plan.config.model_copy(update={"cluster": cluster}))


def _drive(
    plan: Plan, folder: Path, view: StudyView, lease: Lease, wall: WallTime, accept: bool = False
) -> End:
    view.note(Outline.of(plan).line())
    view.note(f"factors: {size_text(factor_bytes(plan.searched))} of disk for all matrices")
    view.note(sizes_text(plan.sizes))
    for notice in [*plan.notices, *plan.prospects]:
        view.note(f"note: {notice}")
    view.questions = {size.part: size.questions for size in plan.sizes}
    cluster = plan.config.cluster

    def tidy(reason: str) -> None:
        note_end(folder, reason)
        lease.release()

    preemption = Preemption(cluster.grace_s, lambda number: interruption(folder, number), tidy)
    with (
        preemption,
        StopRequest(folder, lease.token),
        ExitStack() as held,
    ):
        opened = partial(_hold_and_open, plan, folder, [lease], wall, held)
        study = None if accept else _finished(plan, folder, opened)
        if study is None:
            at = "starting Ray" if cluster.address is None else f"joining Ray at {cluster.address}"
            view.phases.enter(at)
            held.enter_context(ray_session(cluster, preemption))
            nodes = living_nodes()
            shares = divide(cluster, nodes, plan.held_bytes)
            log.debug("%s", shares)
            for sentence in crowded(shares, nodes, plan.held_bytes):
                view.note(f"note: {sentence}")
            wall.enter("factors")
            identity, keys = _identify(plan, folder, shares, view, preemption.check, accept)
            wall.enter("start")
            study = opened(identity, keys)
            summarised = partial(summary_of, study)
            study.on_change = lambda: view.changed(study.running(), summarised)
            preemption.search(study)
            view.phases.enter(LOADING)

            def at_step() -> bool:
                with suppress(StorageLost):  # whoever has to write says so
                    view.look(study.running(), summarised)
                return preemption.is_cut

            _search(plan, study, shares, at_step)
            view.phases.enter("stopping Ray")
            preemption.leave()
    return _concluded(plan, study, view, preemption)


def _finished(
    plan: Plan, folder: Path, opened: Callable[[Identity, Mapping[str, str]], DrivenStudy]
) -> DrivenStudy | None:
    """The study if nothing of it is left to evaluate, so that no Ray is needed; else None.

    Raises InputError if the world is not as it began.
    """
    if not (folder / IDENTITY_FILE).exists() or wants_spectra(plan):
        return None
    if read_result(folder) is None:  # before the trials are read, which the study does again
        return None
    record = StudyRecord.read(folder)
    if record.summary.running or record.summary.finished < plan.config.search.trials:
        return None
    plan.witness.seal()
    # Its weights are what they were if the files of the model are: no key has to be computed.
    identity = record.identity.check(world_of(plan, record.identity.weights))
    study = opened(identity, {})
    return study if study.next_job() is None and not study.running() else None


def _hold_and_open(
    plan: Plan,
    folder: Path,
    leases: list[Lease],
    wall: WallTime,
    held: ExitStack,
    identity: Identity,
    keys: Mapping[str, str],
) -> DrivenStudy:
    """The study, which no other driver may write until `held` is closed.

    `leases`: what is held; a database's is added the first time.
    """
    if (url := plan.config.storage) is not None and len(leases) == 1:
        from search.study.lock_table import TableLedger

        ledger = TableLedger(url, identity.study_id)
        leases.append(held.enter_context(hold(ledger, f"study {identity.study_id}")))
    return _open(plan, folder, identity, keys, leases, wall)


def _concluded(plan: Plan, study: DrivenStudy, view: StudyView, preemption: Preemption) -> End:
    """The verdict, if all is scored, and how the run ended."""
    found = summary_of(study)
    view.phases.enter("verdict")
    for notice in found.shortfall(plan.config.search.trials):
        view.note(f"note: {notice}")
    # A worker that Ray stopped could not tidy up, so remove what is no longer used.
    with suppress(OSError):
        SharedScratch(study.identity.study_id, plan.config.reuse.folder).close()
    verdict = None
    if not (study.stopped or study.draining) and study.is_intact():
        verdict = verdict_of(plan, study, found)
    return End(found, verdict, study.stopped, preemption.asked if verdict is None else None)


def _open(
    plan: Plan,
    folder: Path,
    identity: Identity,
    keys: Mapping[str, str],
    leases: Sequence[Lease],
    wall: WallTime,
) -> DrivenStudy:
    def guard() -> None:
        for lease in leases:
            lease.check()

    return open_driven(plan, folder, identity, keys, guard, wall)


def _identify(
    plan: Plan,
    folder: Path,
    shares: Resources,
    view: StudyView,
    check: Callable[[], None],
    accept: bool,
) -> tuple[Identity, Mapping[str, str]]:
    """Compute missing factors; then begin the study, or check that its world is unchanged.

    Also returns the factors' keys by address.
    """
    from cluster.course import FactorCourse
    from cluster.precompute import precompute

    inputs = _calibrated(plan, folder, shares, view, check)
    keys = precompute(
        plan.source,
        plan.searched,
        plan.config.factors,
        shares,
        storing_of(plan, inputs),
        FactorCourse(view.phases, plan.searched).built,
        check,
        here=plan.config.cluster.address is None,
    )
    plan.witness.seal()  # what was read until here was read from what is digested
    world = world_of(plan, digest_weights(keys))
    if (folder / IDENTITY_FILE).exists():
        known = Identity.read(folder)
        identity = known.check(world, accept=accept)
        if identity is not known:
            identity.write(folder)
        return identity, keys
    identity = Identity.new(world)
    identity.write(folder)
    return identity, keys


def _calibrated(
    plan: Plan,
    folder: Path,
    shares: Resources,
    view: StudyView,
    check: Callable[[], None],
) -> Mapping[MatrixRef, SecondMoment]:
    """What the matrices of the space are given, measured once and noted in the study's folder."""
    from cluster.calibrate import calibrate

    def run(calibration: Calibration) -> Mapping[MatrixRef, SecondMoment]:
        view.phases.enter("calibrating")
        return calibrate(calibration, plan.config.factors, shares, check)

    found = noted_calibration(plan.calibration, folder, plan.config.factors, run)
    for sentence in shortfalls(found):
        view.note(f"note: {sentence}")
    return found


def _search(plan: Plan, study: DrivenStudy, shares: Resources, is_cut: Callable[[], bool]) -> None:
    from ray import tune

    from cluster.execution import execute
    from cluster.worker import StudyWorker

    worker = tune.with_parameters(StudyWorker, blueprint=_blueprint(plan, study, shares))
    each = {"cpu": shares.cpus, "gpu": shares.gpus}
    execute(study, worker, each, is_cut, plan.held_bytes)


def _blueprint(plan: Plan, study: DrivenStudy, shares: Resources) -> Blueprint:
    """What a worker of this study needs."""
    from cluster.worker import Blueprint

    return Blueprint(
        plan.config.model_copy(update={"storage": None}),  # workers need no database password
        str(study.folder.resolve()),
        study.identity.study_id,
        tuple(plan.split.validation),
        tuple(plan.split.test),
        plan.objective,
        shares.threads,
        _device(shares.gpus),
        frozenset(plan.space.matrices),
        shares.workers,
        tuple(plan.split.confirm),
        Holder.here(),
        plan.witness.facts(),
        read_calibration(study.folder, plan.config.factors),
        tuple(plan.parts["guard"]),
        tuple(plan.parts["sample"]),
    )


def _device(gpus: float) -> str:
    """What `ModelSource.load` calls the place for a model."""
    if not gpus:
        return "cpu"
    return "cuda" if gpus <= 1 else "spread"
