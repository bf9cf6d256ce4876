"""What a study looks for: one task's score, or a weighted mean over several, above their floors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search.config import StudyConfig
from search.sections import FloorConfig
from search.study.outcomes import Evaluation
from tasks.base import Outcome
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT
from tasks.metrics import PERPLEXITY, is_perplexity, shown
from tasks.power import HITS
from tasks.scoring import quadratic_score

OBJECTIVE, GAIN = "objective", "relative gain"
"""What a study of several tasks maximises is called, where one task has its metric."""

LEAST = -50.0
"""Log-probabilities below this are alike."""


@dataclass(frozen=True)
class Goal:
    """One task's share in what a study looks for. `task` is its label, empty if it is the only one.

    `weight` 0: the task is asked for its floor alone, or to be watched.
    """

    task: str
    metric: str
    weight: float = 1.0
    floor: FloorConfig | None = None

    def unit(self, baseline: float) -> float:
        """What a change of the score is divided by where changes count relative to the baseline.

        A perplexity's score is in nats, whose changes are relative as they are: 0.01 is 1 %.
        Where the baseline scores 0 there is no share of it, and the change itself counts.
        """
        return 1.0 if is_perplexity(self.metric) else abs(baseline) or 1.0

    def bounds(self, baseline: float) -> dict[str, float]:
        """The lowest scores that the floor allows, by the key of study.yaml."""
        found: dict[str, float] = {}
        if self.floor is None:
            return found
        perplexity = is_perplexity(self.metric)
        if (share := self.floor.worse_by) is not None:
            lost = math.log1p(share) if perplexity else share * abs(baseline)
            found["worse_by"] = baseline - lost
        if (limit := self.floor.limit) is not None:
            found["limit"] = -math.log(limit) if perplexity else limit
        return found


@dataclass(frozen=True)
class FloorCheck:
    """A floor on one part of the data, in the task's metric; `kept` is whether the score is in."""

    task: str
    metric: str
    key: str
    bound: float
    score: float
    kept: bool


@dataclass(frozen=True)
class Objective:
    """What a study maximises, and what a trial must not lose on the way.

    The value of a composition is the weighted mean of its tasks' scores (more is better, a
    perplexity counts as minus the mean negative log-likelihood per token); `relative`: of their
    changes from the baseline, each as a share of the baseline's score (see `Goal.unit`).
    `guard`: the floor on general text, which trials are scored on beside the tasks; None: none is.
    `by_log_loss`: within a budget, where answers are hits or misses: near trials, which nearly all
    trials are then, are told apart by their log-loss, which the value is too coarse for.
    `quadratic_weight`: where answers are hits or misses, trials are ranked by the value plus this
    many times the mean quadratic score, together the *soft score* (decision 0041).
    """

    goals: tuple[Goal, ...]
    relative: bool = False
    guard: Goal | None = None
    by_log_loss: bool = False
    quadratic_weight: float = 0.0

    @staticmethod
    def of(config: StudyConfig, metrics: Mapping[str, str]) -> Objective:
        """The objective of a configuration; `metrics` by label as the tasks name them.

        Raises InputError for a floor that a metric cannot have.
        """
        for label, goal in config.goals.items():
            limit = goal.floor.limit if goal.floor is not None else None
            if limit is not None and limit <= 0 and is_perplexity(metrics.get(label, "")):
                raise InputError(
                    f"the floor of task {label!r} has limit {limit:g}, but a perplexity is above 0"
                )
        goals = [
            Goal(label, metrics.get(label, "score"), goal.weight, goal.floor)
            for label, goal in config.goals.items()
        ]
        own = goals[0].metric if config.task is not None else ""
        hits = own in HITS
        # The paper's rules stand beside the paper's figures, which go by accuracy alone.
        weight = config.search.quadratic_weight if hits and not config.paper else 0.0
        return Objective(
            tuple(goals),
            config.objective == "relative",
            _guard(config),
            by_log_loss=hits and config.space.budget is not None,
            quadratic_weight=weight,
        )

    @property
    def single(self) -> bool:
        """Whether there is one task, whose score is the value."""
        return len(self.goals) == 1 and not self.goals[0].task

    @property
    def metric(self) -> str:
        """What the value is called: the only task's metric, else its own name."""
        if self.single:
            return self.goals[0].metric
        return GAIN if self.relative else OBJECTIVE

    @property
    def metrics(self) -> dict[str, str]:
        """Every task's metric by its label."""
        return {goal.task: goal.metric for goal in self.goals}

    @property
    def needs_baseline(self) -> bool:
        """Whether a trial can only be judged once the baseline is known."""
        return self.relative or any(goal.floor is not None for goal in self.held)

    @property
    def held(self) -> tuple[Goal, ...]:
        """What a trial is held to: the tasks, and the general text of a guard."""
        return self.goals if self.guard is None else (*self.goals, self.guard)

    def paired(self, outcome: Outcome) -> float:
        """What trials are compared by in a race, question by question."""
        if self.by_log_loss:
            return max(LEAST, outcome.log_probability)
        if not self.quadratic_weight:
            return outcome.score
        return outcome.score + self.quadratic_weight * quadratic_score(outcome)

    def soft_score(self, evaluation: Evaluation) -> float | None:
        """What an evaluation is ranked by in place of its score; None where that is the score."""
        if not self.quadratic_weight or evaluation.quadratic is None:
            return None
        return evaluation.score + self.quadratic_weight * evaluation.quadratic

    @property
    def ranking(self) -> str:
        """What trials are ranked by, for people; empty where it is the value."""
        if not self.quadratic_weight:
            return ""
        times = "" if self.quadratic_weight == 1 else f"{self.quadratic_weight:g} × "
        return f"{self.metric} + {times}quadratic score"

    def merit(self, evaluation: Evaluation) -> tuple[float, float]:
        """Order of evaluations: soft score or score, then the lower log-loss."""
        soft = self.soft_score(evaluation)
        return (evaluation.score if soft is None else soft, -evaluation.log_loss)

    def value(
        self, scores: Mapping[str, float], baseline: Mapping[str, float] | None = None
    ) -> float:
        """What is maximised, from each task's mean score; `baseline` None: these are its own.

        A task that is not in `scores` yet (an early chunk) is left out.
        """
        if self.relative:
            before = scores if baseline is None else baseline
            scores = {
                goal.task: (scores[goal.task] - before[goal.task]) / goal.unit(before[goal.task])
                for goal in self.goals
                if goal.task in scores
            }
        return self.mean(scores)

    def mean(self, values: Mapping[str, float]) -> float:
        """The weighted mean over the tasks that have a value."""
        if self.single:
            return values[self.goals[0].task]
        weights = {g.task: g.weight for g in self.goals if g.weight and g.task in values}
        total = math.fsum(weight * values[task] for task, weight in weights.items())
        return total / math.fsum(weights.values())

    def violations(
        self, scores: Mapping[str, float], baseline: Mapping[str, float]
    ) -> dict[str, float]:
        """How far each floor is missed, in units of the score; not above 0 where it is kept."""
        return {
            f"{goal.task}.{key}": bound - scores[goal.task]
            for goal in self.held
            for key, bound in goal.bounds(baseline.get(goal.task, 0.0)).items()
        }

    def floors(
        self, scores: Mapping[str, float], baseline: Mapping[str, float]
    ) -> list[FloorCheck]:
        """Every task's floor against `scores`, as people read it."""
        return [
            FloorCheck(
                goal.task,
                goal.metric,
                key,
                shown(goal.metric, bound),
                shown(goal.metric, scores[goal.task]),
                scores[goal.task] >= bound,
            )
            for goal in self.goals
            for key, bound in goal.bounds(baseline[goal.task]).items()
        ]

    def text(self, value: float, scores: Mapping[str, float]) -> str:
        """A value as people read it, with every task's metric where there are several."""
        each = [
            f"{goal.task} {shown(goal.metric, scores[goal.task]):.4f}"
            for goal in self.held
            if goal.task in scores and (goal.task or not self.single)
        ]
        value = shown(self.metric, value) if self.single else value
        return f"{value:.4f} ({', '.join(each)})" if each else f"{value:.4f}"


def _guard(config: StudyConfig) -> Goal | None:
    """The floor on general text that a configuration asks for."""
    if config.guard is None or config.guard.worse_by is None:
        return None
    return Goal(GENERAL_TEXT, PERPLEXITY, 0.0, FloorConfig(worse_by=config.guard.worse_by))


def floor_sentence(check: FloorCheck) -> str:
    """One floor on test."""
    limit = "at most" if is_perplexity(check.metric) else "at least"
    how = "keeps" if check.kept else "Warning: BREAKS"
    return (
        f"{how} the floor of {check.task} on test: {check.metric} {check.score:.4f}, "
        f"{limit} {check.bound:.4f} allowed ({check.key})"
    )
