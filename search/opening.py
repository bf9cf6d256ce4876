"""From a plan to a study that is being driven: what it is of, and what its strategy knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from search.cuts.kinds.base import Inputs
from search.cuts.refs import MatrixRef
from search.plan import Plan
from search.storing import Storing
from search.strategies.base import Setting
from search.strategies.registry import strategy_class
from search.study.driven_study import DrivenStudy
from search.study.identity import (
    Digests,
    Identity,
    digest_checkpoint,
    digest_examples,
    digest_settings,
    flat_settings,
)
from search.study.questions import write_questions
from search.study.storages import Guard
from search.study.subject import Subject
from search.study.summary import Summary, summarise
from search.study.verdict import Verdict, conclude
from search.study.wall_time import WallTime
from search.weights.remote import open_factors
from search.weights.spectra import Spectrum


def open_driven(
    plan: Plan,
    folder: Path,
    identity: Identity,
    keys: Mapping[str, str],
    guard: Guard,
    wall: WallTime,
) -> DrivenStudy:
    """The study in `folder`, begun or continued. `keys` of the factors by address.

    `guard` is called before every write; it raises StorageLost where this driver may not write.
    """
    write_questions(folder, plan.split)
    subject = Subject(
        folder=folder,
        identity=identity,
        config=plan.config,
        space=plan.space,
        max_ranks=plan.max_ranks,
        objective=plan.objective,
        setting=setting_of(plan, keys),
        shapes={m.ref: m.shape for m in plan.matrices if m.block or m in plan.searched},
        general_text=None if plan.general_text is None else plan.general_text.digest,
    )
    return DrivenStudy.open(subject, guard=guard, wall=wall, witness=plan.witness)


def setting_of(plan: Plan, keys: Mapping[str, str]) -> Setting:
    """What the strategy knows before the first trial; `keys` of the factors by address."""
    search = plan.config.search
    spectra = None
    if wants_spectra(plan):
        cache = open_factors(plan.config.factors)
        spectra = {
            m.ref: Spectrum(
                str(m.ref),
                plan.source.path,
                m.module,
                m.shape,
                np.asarray(cache.spectrum(keys[str(m.ref)]), dtype=np.float64),
            )
            for m in plan.searched
        }
    return Setting(
        plan.space,
        plan.max_ranks,
        search.seed,
        search.objectives,
        spectra=spectra,
        threshold=search.threshold,
        by_log_loss=plan.objective.by_log_loss,
    )


def storing_of(plan: Plan, inputs: Mapping[MatrixRef, Inputs]) -> Storing:
    """The factors that trials read; `inputs`: what the matrices are given, where a cut needs it."""
    # A space says which ranks it uses, but is not all that is tried.
    given = bool(plan.config.search.warm_start) or plan.space.budget is not None
    every_rank = wants_spectra(plan) or given
    return Storing.for_space(plan.space, every_rank=every_rank, inputs=inputs)


def wants_spectra(plan: Plan) -> bool:
    """Whether the strategy, a level or a given composition reads singular values."""
    return (
        strategy_class(plan.config.search.strategy).wants_spectra
        or plan.space.ladder.needs_spectra
        or any(i.rule.needs_spectrum for one in plan.given for i in one.interventions)
    )


def world_of(plan: Plan, weights: str) -> Digests:
    """What the trials depend on; `weights` is the digest of the searched matrices."""
    return Digests(
        weights,
        digest_checkpoint(plan.source.folder, plan.witness.digests),
        digest_examples(
            plan.split.validation, plan.split.test, plan.split.confirm, plan.parts["sample"]
        ),
        digest_settings(plan.config),
        flat_settings(plan.config),
    )


def verdict_of(plan: Plan, study: DrivenStudy, found: Summary) -> Verdict | None:
    """The verdict of a study whose summary is `found`, written durably; see `conclude`."""
    return conclude(
        study.folder,
        study.identity,
        replace(study.chosen(), infeasible=found.infeasible, finished=found.finished),
        plan.split,
        plan.objective,
        paper=plan.config.paper,
        general_text=plan.general_text,
        budgets=() if plan.space.budget is None else plan.space.budget.kept,
    )


def summary_of(study: DrivenStudy) -> Summary:
    """Where a study stands that is being driven."""
    return summarise(
        study.trials(),
        study.baseline,
        study.budget,
        study.objective,
        ended=study.ended,
        chosen=study.chosen(),
        shares=() if (budget := study.config.space.budget) is None else budget.shares,
    )
