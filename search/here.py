"""A whole study in this process, with no Ray: begun in a new folder, continued in its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from search.calibration.calibration import Moments, noted_calibration, shortfalls
from search.config import StudyConfig, write_config
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.loop import run_job
from search.model import own_device
from search.opening import open_driven, storing_of, summary_of, verdict_of, world_of
from search.phases import SILENT, Phases
from search.place import check_study_place
from search.plan import Plan, make_plan
from search.reuse.activations import GIB, Room
from search.storing import Built, ensure_factors
from search.study.driver_log import note_begin, note_end
from search.study.identity import FILE as IDENTITY_FILE
from search.study.identity import Identity, digest_weights
from search.study.jobs import Job
from search.study.journal import mend_journal
from search.study.lock import driver_lock
from search.study.storages import open_storage
from search.study.study_record import CONFIG
from search.study.summary import Summary
from search.study.verdict import Verdict
from search.study.wall_time import WallTime
from search.weights.remote import check_factors
from tasks.errors import InputError
from tasks.guarded import Guarded
from tasks.inside import check_links
from tasks.parts import sizes_text

Look = Callable[[Sequence[Job], Callable[[], Summary]], None]
"""Told which jobs are asked next, and what says where the study stands, which takes time."""


def _unseen(jobs: Sequence[Job], summarise: Callable[[], Summary]) -> None:
    """Nobody looks."""


def run_here(
    config: StudyConfig, folder: Path, phases: Phases = SILENT, look: Look = _unseen
) -> Verdict | None:
    """Begin the study in `folder`, or continue it where it is that very study, to its end.

    The factors are computed here, the model is loaded once, and test is scored at the end. An
    interruption loses nothing that is finished: the same call continues. Returns None if the study
    stopped before its verdict. Raises InputError if the folder holds another study or what is not
    ours, or anything that it depends on has changed.
    """
    wall = WallTime()
    known = (folder / IDENTITY_FILE).exists()
    if not known:
        check_study_place(folder)
    check_links(folder)
    check_factors(config.factors)
    plan = make_plan(config)
    folder.mkdir(parents=True, exist_ok=True)
    with driver_lock(folder) as lease:
        if known and (notice := mend_journal(folder)):
            phases.note(f"note: {notice}")
        open_storage(folder, config.storage)
        note_begin(folder)
        try:
            verdict = _drive(plan, folder, phases, look, lease.check, wall)
        except InputError as error:
            note_end(folder, str(error))
            raise
        except BaseException as error:
            note_end(folder, f"it was interrupted ({type(error).__name__})")
            raise
        note_end(folder, "" if verdict else "it stopped before its verdict")
        return verdict


def _drive(
    plan: Plan,
    folder: Path,
    phases: Phases,
    look: Look,
    guard: Callable[[], None],
    wall: WallTime,
) -> Verdict | None:
    phases.note(sizes_text(plan.sizes))
    for notice in [*plan.notices, *plan.prospects]:
        phases.note(f"note: {notice}")
    wall.enter("factors")
    factors = plan.config.factors
    if plan.calibration is not None:
        phases.enter("calibrating")
    inputs = noted_calibration(
        plan.calibration, folder, factors, lambda one: one.run(factors, own_device())
    )
    for notice in shortfalls(inputs):
        phases.note(f"note: {notice}")
    keys = _decompose(plan, inputs, phases)
    wall.enter("start")
    plan.witness.seal()  # what was read until here was read from what is digested
    world = world_of(plan, digest_weights(keys))
    if (folder / IDENTITY_FILE).exists():
        identity = Identity.read(folder).check(world)
    else:
        identity = Identity.new(world)
        identity.write(folder)
    write_config(plan.config, folder / CONFIG)
    study = open_driven(plan, folder, identity, keys, guard, wall)
    if (job := study.next_job()) is not None:  # a finished study needs no model
        phases.enter("loading the model")
        with closing(_evaluator(plan, identity, inputs)) as evaluator:
            while job is not None:
                look([job], lambda: summary_of(study))
                run_job(study, evaluator, job)
                job = study.next_job()
    if study.stopped or not study.is_intact():
        return None
    return verdict_of(plan, study, summary_of(study))


def _decompose(plan: Plan, inputs: Moments, phases: Phases) -> dict[str, str]:
    """Have the factors of every searched matrix in the cache; their keys by address."""
    keys: dict[str, str] = {}

    def built(one: Built) -> None:
        keys[one.address] = one.key
        phases.advance(len(keys))

    phases.enter("factors", len(plan.searched))
    ensure_factors(
        plan.source,
        plan.searched,
        plan.config.factors,
        storing_of(plan, inputs),
        own_device(),
        on_built=built,
    )
    return keys


def _evaluator(plan: Plan, identity: Identity, inputs: Moments) -> Evaluator:
    config = plan.config
    questions = Questions(
        Guarded(plan.task), plan.parts, config.search.chunks, plan.objective, identity.study_id
    )
    reuse = config.reuse
    hosting = Hosting(
        own_device(),
        config.tokens_per_batch,
        frozenset(plan.space.matrices),
        Room(int(reuse.memory_gib * GIB), int(reuse.host_gib * GIB)),
        factored=config.products == "factored",
        inputs=inputs,
    )
    return open_evaluator(plan.source, questions, config.factors, hosting)
