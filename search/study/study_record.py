"""A study read from its folder, by anyone, while it runs or after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.budget import Budget
from search.config import StudyConfig, read_frozen
from search.cuts.refs import MatrixRef
from search.study.disputes import disputed, disputed_notice
from search.study.identity import Identity
from search.study.jobs import BASELINE, trial_name
from search.study.objective import Objective
from search.study.optuna_study import BUDGET, ENDED, METRICS, SHAPES, WALL, OptunaStudy
from search.study.outcomes import damaged_notice, read_outcomes
from search.study.summary import Summary, summarise
from search.study.trials import TrialRecord
from search.study.verdict import read_result
from search.study.winner import Confirmation

CONFIG = "study.yaml"


@dataclass(frozen=True)
class StudyRecord:
    """What the folder says. Nothing is written and no lock is taken.

    `notices`: sentences on trials that are not used and on files that are damaged. `budget`: what
    the trials divide, where the space has one.
    """

    folder: Path
    config: StudyConfig
    identity: Identity
    trials: list[TrialRecord]
    summary: Summary
    result: dict[str, Any] | None
    notices: list[str] = field(default_factory=list)
    budget: Budget | None = None

    @property
    def is_over(self) -> bool:
        """Whether the study has its verdict for the trials that it was asked for."""
        return self.result is not None and self.summary.finished >= self.summary.asked

    @staticmethod
    def read(folder: Path) -> StudyRecord:
        """Read a study. Raises InputError if there is none or its storage does not answer."""
        identity = Identity.read(folder)
        config = read_frozen(folder / CONFIG)
        baseline = read_outcomes(folder, BASELINE, identity.study_id, "")
        trials: list[TrialRecord] = []
        facts: Mapping[str, Any] = {}
        if (stored := OptunaStudy.find(folder, identity.study_id, config)) is not None:
            recorded = [TrialRecord.of(trial) for trial in stored.trials()]
            wrong = disputed(recorded, folder, identity.study_id)
            trials = [wrong.get(trial.number, trial) for trial in recorded]
            facts = stored.facts
        objective = Objective.of(config, facts.get(METRICS, {}))
        budget = _budget(config, facts)
        confirmation = Confirmation(
            folder,
            identity.study_id,
            config.search.confirm,
            objective,
            must_gain=config.space.budget is None,
        )
        summary = summarise(
            trials,
            baseline,
            facts.get(BUDGET, config.search.trials),
            objective,
            ended=facts.get(ENDED, ""),
            chosen=confirmation.chosen(trials, baseline),
            wall_s=facts.get(WALL),
            shares=() if config.space.budget is None else config.space.budget.shares,
        )
        result = read_result(folder)
        needed = {BASELINE: ""}
        if (winner := summary.winner) is not None:
            needed[trial_name(winner.number)] = winner.effect
        if result is not None:
            needed |= {job.name: job.effect for job in confirmation.wanted(trials, baseline)}
        notices = disputed_notice(trials) + damaged_notice(folder, identity.study_id, needed)
        return StudyRecord(folder, config, identity, trials, summary, result, notices, budget)


def _budget(config: StudyConfig, facts: Mapping[str, Any]) -> Budget | None:
    """The budget of a study and the matrices that it is divided among, where it has one."""
    if config.space.budget is None or SHAPES not in facts:
        return None
    known = facts[SHAPES]
    shapes = [(int(out), int(into)) for out, into in known.values()]
    return Budget.build(config.space.budget, list(map(MatrixRef.parse, known)), shapes)
