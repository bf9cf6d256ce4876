"""The sections of study.yaml: what each key may be, and what it is where it is left out."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from search.cuts.level import PLAIN, Level
from search.model import DType, ModelSource
from tasks.base import HeadChoice
from tasks.errors import InputError
from tasks.splits import Protocol

PAPER_RHO = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)
"""The grid of the LASER paper, as fractions kept."""


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def _number(value: Any) -> Any:
    """A number, also one such as 1e-2, which YAML takes for a text; true is one to Python alone."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


Count = Annotated[int, Field(ge=1), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]


def _level(value: Any) -> str:
    """The canonical spelling of a level; YAML reads 0.1 as a number and prune/0.5 as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("give a rho such as 0.1, or a level such as 'energy:0.9' or 'prune/0.5'")
    try:
        return str(Level.parse(value))
    except InputError as error:
        raise ValueError(str(error)) from None


LevelText = Annotated[str, BeforeValidator(_level)]


class Strict(BaseModel):
    """A part of the configuration: unknown keys and wrong types are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(Strict):
    """The model: a local folder or a hub id at a revision.

    `chat_template` asks an instruction-tuned model each question as a user's message. `mapped`
    leaves weights on a CPU in their files, from which the system reads what a pass needs.
    """

    path: str = Field(min_length=1)
    head: HeadChoice = "auto"
    dtype: DType = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: bool = False
    mapped: bool = False

    def source(self) -> ModelSource:
        """The checkpoint that this names."""
        return ModelSource(
            self.path,
            self.revision,
            self.head,
            self.dtype,
            self.trust_remote_code,
            self.chat_template,
            self.mapped,
        )


class TaskConfig(Strict):
    """The questions: a task by name, and a local file or hub id where it is not the default.

    `scoring` ``paper`` follows LASER's released code, faults included. `num_fewshot` and `limit`
    are for tasks of lm-evaluation-harness (``lm_eval:NAME``), whose `data` is a folder of YAML.
    `tokenizer`: what counts the tokens of HotpotQA's answers under scoring ``paper``; Llama's.
    """

    name: str
    data: str | None = None
    revision: str | None = None
    scoring: Literal["default", "paper"] = "default"
    num_fewshot: Annotated[int, Field(ge=0), BeforeValidator(_number)] | None = None
    limit: Count | None = None
    tokenizer: str | None = None


class FloorConfig(Strict):
    """What a task must keep, else a trial is infeasible and cannot win; all that is given holds.

    `worse_by`: the share of the baseline's metric that may be lost: with 0.01 a perplexity of 20
    may rise to 20.2, an accuracy of 0.8 fall to 0.792. `limit`: the metric itself, at most for
    a perplexity, at least for all else.
    """

    worse_by: Annotated[float, Field(ge=0), BeforeValidator(_number)] | None = None
    limit: Annotated[float, BeforeValidator(_number)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> FloorConfig:
        if self.worse_by is None and self.limit is None:
            raise ValueError("a floor needs worse_by, limit or both")
        return self


class GoalConfig(TaskConfig):
    """One of several tasks: how much it counts, and what it must keep.

    `label` is what it is called, by default its name; needed where one name is used twice.
    """

    label: Annotated[str, Field(min_length=1, pattern=r"^[^/\s]+$")] | None = None
    weight: Annotated[float, Field(ge=0), BeforeValidator(_number)] = 1.0
    floor: FloorConfig | None = None


class CalibrationConfig(Strict):
    """What cuts that need it are calibrated on: the inputs of matrices on these texts.

    `data`: a file of texts (.txt), of rows with ``text`` or ``prompt``, or a hub data set; by
    default the prompts of validation. Questions of test are never read. `tokens`: how far.
    """

    data: str | None = None
    tokens: Count = 65536
    seed: int = 0


class SplitConfig(Strict):
    """The fraction of examples that the search sees; the rest is the test part.

    `protocol`: ``auto`` takes the data's own parts where it has them, else splits by group;
    ``groups`` always does; ``paper`` takes the first part of the file, unshuffled.
    """

    validation: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)] = 0.2
    seed: int = 0
    protocol: Protocol = "auto"


class RhoRange(Strict):
    """A continuous range of rho, drawn log-uniformly."""

    low: Annotated[float, Field(gt=0, le=1), BeforeValidator(_number)]
    high: Annotated[float, Field(gt=0, le=1), BeforeValidator(_number)]

    @model_validator(mode="after")
    def _ordered(self) -> RhoRange:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


KeptShare = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)]


class BudgetConfig(Strict):
    """A share `kept` of the parameters of the space's matrices, or several, for whole models.

    Each matrix counts as it is stored: r (m + n) as two factors of rank r, m n where that is less.
    `kind`: how matrices are cut, or several kinds to choose from; a composition has one.
    """

    kept: KeptShare | Annotated[list[KeptShare], Field(min_length=1)]
    kind: str | Annotated[list[str], Field(min_length=1)] = PLAIN

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares, as they were given."""
        return tuple(self.kept) if isinstance(self.kept, list) else (self.kept,)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds, each once."""
        return tuple(dict.fromkeys([self.kind] if isinstance(self.kind, str) else self.kind))


QUADRATIC_WEIGHT = 1.0
"""Chosen on tables of what real cuts do to questions that no choice saw (docs/log.md)."""

MOST_CUTS = 3
"""Choices in a composition, unless study.yaml says otherwise."""


class SpaceConfig(Strict):
    """What may be cut: layers, matrix types or groups, and to which levels.

    `rho`: fractions of rank kept, or a range of them. `levels` in its place: rank rules and kinds
    too, as ``evaluate`` spells them: ``0.1``, ``energy:0.9``, ``marchenko-pastur``, ``prune/0.5``.
    `groups` are cut as one choice to one level: ``mlp`` of each layer, or ``20-27.fc_in``, one type
    across layers. Without `singles` nothing else is. `budget` in place of levels: every matrix of
    the space to a rank of its own, so that all together keep a share of their parameters.
    """

    layers: Literal["all"] | list[Annotated[int, Field(ge=0), BeforeValidator(_number)] | str] = (
        "all"
    )
    matrices: Annotated[list[str], Field(min_length=1)] = ["fc_in", "fc_out"]
    rho: Annotated[list[Fraction], Field(min_length=1)] | RhoRange | None = list(PAPER_RHO)
    levels: Annotated[list[LevelText], Field(min_length=1)] | None = None
    groups: list[str] = []
    singles: bool = True
    max_interventions: Count = MOST_CUTS
    budget: BudgetConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_rho_beside_levels(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "rho" in raw:
            return raw
        if raw.get("levels") is not None or raw.get("budget") is not None:
            return {**raw, "rho": None}
        return raw

    @model_validator(mode="after")
    def _has_choices(self) -> SpaceConfig:
        if self.budget is not None:
            return self._within_budget()
        if not self.singles and not self.groups:
            raise ValueError("singles: false leaves nothing to cut; give groups, such as [mlp]")
        if (self.levels is None) == (self.rho is None):
            raise ValueError("give either rho or levels; a rho such as 0.1 is also a level")
        return self

    def _within_budget(self) -> SpaceConfig:
        for name, given in (
            ("rho", self.rho is not None),
            ("levels", self.levels is not None),
            ("groups", bool(self.groups)),
            ("singles", not self.singles),
            ("max_interventions", self.max_interventions != MOST_CUTS),
        ):
            if given:
                raise ValueError(
                    f"a budget gives every matrix of the space a rank of its own; leave {name} out"
                    + (", and name the kind of cut with budget.kind" if name == "levels" else "")
                )
        return self


class StopConfig(Strict):
    """When a search ends before its number of trials; the first rule that holds ends it.

    `wall_s`: seconds of driving it, over all runs. `no_gain_trials`: finished trials without a
    better score. `target`: the objective, in the metric as it is reported.
    """

    wall_s: Annotated[float, Field(gt=0), BeforeValidator(_number)] | None = None
    no_gain_trials: Count | None = None
    target: Annotated[float, BeforeValidator(_number)] | None = None


class ConfirmConfig(Strict):
    """A `share` of validation that no trial sees, where the best `finalists` are asked again."""

    share: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)] = 0.25
    finalists: Count = 8


class SearchConfig(Strict):
    """How the space is searched. `trials` counts finished evaluations.

    `warm_start`: compositions that are tried first, or folders of studies whose best are.
    `refine`: trials at the end that stay near the best; below 1 a share of all.
    `pruner` ``auto``: a race where the strategy is ``auto`` and there are questions enough, of as
    many `chunks` as the plan finds; else none.
    `quadratic_weight`: where answers are right or wrong, trials are ranked by their score plus this
    many times the quadratic score of the answers' probabilities; 0: by the score alone.
    `pareto`: for a front of score and size, every trial that none beats in both.
    """

    strategy: str = "auto"
    encoding: Literal["slots", "sites"] = "slots"
    threshold: Literal["laser-rmt", "marchenko-pastur"] = "laser-rmt"
    trials: Count = 200
    seed: int = 0
    warm_start: list[str] = []
    refine: Annotated[float, Field(ge=0), BeforeValidator(_number)] = 0
    pruner: Literal["auto", "none", "median", "successive-halving", "race"] = "auto"
    race_error: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)] = 0.05
    chunks: Count = 1
    quadratic_weight: Annotated[float, Field(ge=0), BeforeValidator(_number)] = QUADRATIC_WEIGHT
    max_attempts: Count = 3
    pareto: bool = False
    stop: StopConfig = StopConfig()
    confirm: ConfirmConfig | None = None

    @field_validator("refine")
    @classmethod
    def _share_or_count(cls, value: float) -> float:
        if value >= 1 and not value.is_integer():
            raise ValueError("give a whole number of trials, or a fraction of them below 1")
        return value

    @model_validator(mode="after")
    def _refines_within_the_budget(self) -> SearchConfig:
        if self.refine >= max(2, self.trials):
            raise ValueError(
                f"refine {self.refine:g} leaves none of the {self.trials} trials for the search"
            )
        return self

    @property
    def objectives(self) -> int:
        """Values of a trial."""
        return 2 if self.pareto else 1

    @model_validator(mode="after")
    def _front_of_whole_trials(self) -> SearchConfig:
        if self.pareto and self.chunks > 1:
            raise ValueError(
                f"pareto needs two values per trial, which only complete trials have; set chunks "
                f"{self.chunks} to 1 and leave the pruner out"
            )
        return self

    @model_validator(mode="after")
    def _pruning_needs_chunks(self) -> SearchConfig:
        if self.pruner not in ("auto", "none") and self.chunks < 2:
            raise ValueError(
                f"pruner {self.pruner!r} compares trials after each chunk; set chunks to 2 or more"
            )
        return self


class ReuseConfig(Strict):
    """Where activations of the unedited model are kept, so that trials begin at their first edit.

    `memory_gib`: per worker, on its device. `host_gib`: pinned memory beside a GPU. `file_gib`: in
    `folder` (default: the system's temporary folder), shared by the workers of a node; with
    several workers on CPUs everything goes there, so that it is in memory once. All zero: every
    pass is a full one.
    """

    memory_gib: Annotated[float, Field(ge=0), BeforeValidator(_number)] = 2
    host_gib: Annotated[float, Field(ge=0), BeforeValidator(_number)] = 0
    file_gib: Annotated[float, Field(ge=0), BeforeValidator(_number)] = 4
    folder: str | None = None


Seconds = Annotated[float, Field(ge=0), BeforeValidator(_number)]


class ClusterConfig(Strict):
    """Where it runs. `address` null starts a local Ray, anything else joins that cluster.

    `trial_timeout_s`: what one evaluation may take in a worker that has loaded the model; then the
    worker is killed and the trial fails. `grace_s`: what evaluations in flight may still take after
    SIGTERM. `storage_wait_s`: for how long a database that does not answer is asked again.
    """

    address: str | None = None
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0), BeforeValidator(_number)] = (
        "auto"
    )
    max_concurrent: Literal["auto"] | Count = "auto"
    trial_timeout_s: Annotated[float, Field(gt=0), BeforeValidator(_number)] | None = None
    grace_s: Seconds = 20.0
    storage_wait_s: Seconds = 600.0


class GuardConfig(Strict):
    """General text on which baseline and winner are compared when the search is over.

    `data`: a text file, a hub id, or ``wikitext2``, ``ptb`` or ``c4``; None: the prompts of the
    test questions. `tokens`: how many of it are read at most. `worse_by`: the share by which a
    trial may raise the perplexity, else it is infeasible and cannot win; 0.01 is 1 %. Each trial is
    measured on a fixed sample of `sample_tokens`, without `data` the prompts of validation.
    """

    data: str | None = None
    tokens: Count = 16384
    worse_by: Annotated[float, Field(ge=0), BeforeValidator(_number)] | None = None
    sample_tokens: Count = 1024
