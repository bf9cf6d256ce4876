"""A study read from its folder, by anyone, while it runs or after."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.config import StudyConfig, read_config
from search.study.confirmation import Confirmation
from search.study.disputes import disputed, disputed_notice
from search.study.driven_study import BUDGET, ENDED, METRICS, WALL
from search.study.identity import Identity
from search.study.jobs import BASELINE, trial_name
from search.study.journal import JOURNAL
from search.study.objective import Objective
from search.study.outcomes import damaged_notice, read_outcomes
from search.study.storages import open_storage
from search.study.summary import Summary, summarise
from search.study.verdict import read_result

CONFIG = "study.yaml"


@dataclass(frozen=True)
class StudyRecord:
    """What the folder says. Nothing is written and no lock is taken.

    `notices`: sentences on trials that are not used and on files that are damaged.
    """

    folder: Path
    config: StudyConfig
    identity: Identity
    trials: list[FrozenTrial]
    summary: Summary
    result: dict[str, Any] | None
    notices: list[str] = field(default_factory=list)

    @staticmethod
    def read(folder: Path) -> StudyRecord:
        """Read a study. Raises InputError if there is none or its storage does not answer."""
        identity = Identity.read(folder)
        config = read_config(folder / CONFIG)
        baseline = read_outcomes(folder, BASELINE, identity.study_id, "")
        trials: list[FrozenTrial] = []
        metrics: dict[str, str] = {}
        asked, ended = config.search.trials, ""
        wall_s: dict[str, float] = {}
        if config.storage is not None or (folder / JOURNAL).exists():
            storage = open_storage(folder, config.storage)
            names = {study.study_name for study in storage.get_all_studies()}
            if identity.study_id in names:
                study = optuna.load_study(study_name=identity.study_id, storage=storage)
                recorded = study.get_trials(deepcopy=False)
                wrong = disputed(recorded, folder, identity.study_id)
                trials = [wrong.get(trial.number, trial) for trial in recorded]
                asked = study.user_attrs.get(BUDGET, asked)
                metrics = study.user_attrs.get(METRICS, metrics)
                ended = study.user_attrs.get(ENDED, ended)
                wall_s = study.user_attrs.get(WALL, wall_s)
        objective = Objective.of(config, metrics)
        confirmation = Confirmation(folder, identity.study_id, config.search.confirm, objective)
        chosen = confirmation.chosen(trials, baseline)
        summary = summarise(
            trials, baseline, asked, objective, ended=ended, chosen=chosen, wall_s=wall_s
        )
        result = read_result(folder)
        needed = {BASELINE: ""}
        if (winner := summary.winner) is not None:
            needed[trial_name(winner.number)] = str(winner.user_attrs["effect"])
        if result is not None:
            needed |= {job.name: job.effect for job in confirmation.wanted(trials, baseline)}
        damaged = damaged_notice(folder, identity.study_id, needed)
        notices = disputed_notice(trials) + damaged
        return StudyRecord(folder, config, identity, trials, summary, result, notices)
