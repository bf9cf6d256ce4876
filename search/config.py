"""study.yaml: one strict model, checked before anything expensive starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from search.cuts.level import PLAIN, Level
from search.durable import write_text
from search.locations import absolute_location, local_or_id
from search.mistakes import mistakes
from search.model import DType, ModelSource
from search.overrides import apply_overrides
from search.plain_yaml import read_yaml
from tasks.base import HeadChoice
from tasks.errors import InputError
from tasks.secrets import has_secret, hide_secrets
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


class StudyConfig(Strict):
    """The whole of study.yaml.

    `task` is what is asked, or `tasks` are. `objective` is for several: the weighted mean of their
    ``scores``, or of their changes ``relative`` to the baseline.
    """

    model: ModelConfig
    task: TaskConfig | None = None
    tasks: Annotated[list[GoalConfig], Field(min_length=1)] | None = None
    objective: Literal["scores", "relative"] = "scores"
    split: SplitConfig = SplitConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    space: SpaceConfig = SpaceConfig()
    search: SearchConfig = SearchConfig()
    guard: GuardConfig | None = GuardConfig()
    factors: str = "./factors"
    storage: str | None = None
    cluster: ClusterConfig = ClusterConfig()
    reuse: ReuseConfig = ReuseConfig()
    products: Literal["dense", "factored", "svd-lowrank"] = "dense"
    tokens_per_batch: Count = 4096

    @property
    def goals(self) -> dict[str, GoalConfig]:
        """What is asked, by label; the label of a single `task` is empty."""
        if self.task is not None:
            return {"": GoalConfig(**self.task.model_dump())}
        return {goal.label or goal.name: goal for goal in self.tasks or ()}

    @property
    def asked(self) -> str:
        """The names of what is asked, for people."""
        return ", ".join(label or goal.name for label, goal in self.goals.items())

    @property
    def paper(self) -> bool:
        """Whether anything is scored by the rules of the paper's code."""
        return any(goal.scoring == "paper" for goal in self.goals.values())

    @model_validator(mode="after")
    def _asks_something(self) -> StudyConfig:
        if (self.task is None) == (self.tasks is None):
            raise ValueError("give the questions with task: or, for several tasks, with tasks:")
        if self.tasks is None:
            if self.objective != "scores":
                raise ValueError(
                    f"objective {self.objective!r} combines several tasks; remove it or use tasks:"
                )
            return self
        labels = [goal.label or goal.name for goal in self.tasks]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"tasks contains {twice[0]!r} twice; give each its own label")
        if not any(goal.weight for goal in self.tasks):
            raise ValueError("all tasks have weight 0; give a weight to a task that is to improve")
        return self

    @model_validator(mode="after")
    def _budget_alone(self) -> StudyConfig:
        if self.space.budget is None:
            return self
        for key, given, instead in (
            ("search.refine", self.search.refine, "strategy budget moves near the best by itself"),
            ("search.pareto", self.search.pareto, "the size is given; name several budgets.kept"),
            ("products: svd-lowrank", self.products == "svd-lowrank", "its cuts have no factors"),
        ):
            if given:
                raise ValueError(f"space.budget does not go with {key}: {instead}")
        if (
            self.search.pruner not in ("auto", "none", "race")
            and len(set(self.space.budget.shares)) > 1
        ):
            raise ValueError(
                f"pruner {self.search.pruner!r} would compare trials of several budgets, which "
                "differ in size; use race, or launch a study for each budget"
            )
        return self

    @model_validator(mode="after")
    def _race_of_one_task(self) -> StudyConfig:
        if self.search.pruner == "race" and self.tasks:
            raise ValueError(
                "pruner 'race' compares trials example by example, which several tasks do not "
                "allow; use median or successive-halving"
            )
        return self

    @model_validator(mode="after")
    def _known_storage(self) -> StudyConfig:
        if self.storage is not None and "://" not in self.storage:
            shown = hide_secrets(f"url://{self.storage}").removeprefix("url://")
            raise ValueError(
                f"storage {shown!r} is not a URL; use null for a file in the study folder or "
                "postgresql://user@host/database"
            )
        return self


ENVIRONMENT = {"factors": "LASER_SEARCH_FACTORS", "storage": "LASER_SEARCH_STORAGE"}
"""Environment variables that stand for a key which study.yaml leaves out."""


LATER = (
    ("search", "confirm", None),
    ("search", "pareto", False),
    ("search", "quadratic_weight", 0.0),
    ("space", "levels", None),
    ("space", "budget", None),
    ("model", "mapped", False),
)
"""Settings that came with a later version, with the value that means what there was before."""


def read_frozen(path: Path) -> StudyConfig:
    """Read the study.yaml of a study that has begun, perhaps by an earlier version.

    What it does not say means what there was before. Raises InputError as `read_config` does.
    """
    return read_config(path, before=True)


def read_config(
    path: Path,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    before: bool = False,
) -> StudyConfig:
    """Read and check study.yaml; relative paths in it are relative to its folder.

    `overrides`: ``KEY=VALUE`` texts, put in place of what the file says. `environment`: variables
    that stand for keys which neither says, see ENVIRONMENT; a folder in one is relative to the
    working folder. `before`: see `read_frozen`. Raises InputError: for each mistake a sentence with
    the key, the value, what was expected, the nearest name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of a study.yaml") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; {_instead(path)}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    data = read_yaml(text, str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path} does not contain a mapping; start with model: and task:")
    apply_overrides(data, overrides)
    used = _fill(data, environment or {})
    for part, key, unused in LATER if before else ():
        if isinstance(data.get(part), dict):
            data[part].setdefault(key, unused)
    return _anchor(parse_config(data, " with ".join([str(path), *used])), path.resolve().parent)


def _fill(data: dict[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Add the keys that variables stand for, where they are missing; returns these variables."""
    used = []
    for key, name in ENVIRONMENT.items():
        if key not in data and (value := environment.get(name)):
            data[key] = absolute_location(value) if key == "factors" else value
            used.append(name)
    return used


def _instead(folder: Path) -> str:
    """What to give instead of a folder, by what lies in it."""
    if (folder / "study.json").is_file():
        return f"it holds a study, which laser-search resume {folder} continues"
    files = sorted(folder.glob("*.yaml"))
    return f"give the path of a study.yaml{f', such as {files[0]}' if files else ''}"


def parse_config(data: dict[str, Any], where: str) -> StudyConfig:
    """Check a configuration that was read from `where`. Raises InputError."""
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        found = mistakes(error, StudyConfig)
        if len(found) == 1:
            raise InputError(f"{where}: {found[0]}") from None
        lines = "".join(f"\n  {sentence}" for sentence in found)
        raise InputError(f"{where} has {len(found)} mistakes:{lines}") from None


def with_trials(config: StudyConfig, text: str) -> StudyConfig:
    """`config` with another number of trials: ``300``, or ``+100`` for a hundred more.

    Raises InputError unless that is a number above 0.
    """
    more = text.startswith("+")
    number = text[1:] if more else text
    if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) > 0):
        raise InputError(
            f"--trials {text!r} is not a number of trials; give one such as 300 or +100"
        )
    count = int(number) + (config.search.trials if more else 0)
    data = config.model_dump()
    data["search"]["trials"] = count
    return parse_config(data, "--trials")


def write_config(config: StudyConfig, path: Path) -> None:
    """Freeze a configuration as YAML that `read_config` reads back."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    secret = config.storage is not None or has_secret(text)
    write_text(path, text, private=secret)


def _anchor(config: StudyConfig, folder: Path) -> StudyConfig:
    """Make paths absolute that name something on this machine, so that any process finds them."""

    def absolute(value: str) -> str:
        return absolute_location(value, folder)

    def present(value: str | None) -> str | None:
        return None if value is None else local_or_id(value, folder)

    model = config.model.model_copy(update={"path": present(config.model.path)})
    asked: dict[str, Any] = {}
    if config.task is not None:
        asked["task"] = config.task.model_copy(update={"data": present(config.task.data)})
    if config.tasks is not None:
        asked["tasks"] = [
            goal.model_copy(update={"data": present(goal.data)}) for goal in config.tasks
        ]
    search = config.search.model_copy(
        update={
            "warm_start": [
                item if "=" in item else absolute(item) for item in config.search.warm_start
            ]
        }
    )
    calibration = config.calibration.model_copy(update={"data": present(config.calibration.data)})
    guard = config.guard
    if guard is not None:
        guard = guard.model_copy(update={"data": present(guard.data)})
    reuse = config.reuse
    if reuse.folder is not None:
        reuse = reuse.model_copy(update={"folder": absolute(reuse.folder)})
    return config.model_copy(
        update={
            "model": model,
            **asked,
            "search": search,
            "calibration": calibration,
            "guard": guard,
            "factors": absolute(config.factors),
            "reuse": reuse,
        }
    )
