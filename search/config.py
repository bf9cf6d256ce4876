"""study.yaml: one strict model, checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from search.durable import write_text
from search.locations import absolute_location, local_or_id
from search.mistakes import mistakes
from search.overrides import apply_overrides
from search.plain_yaml import read_yaml
from search.sections import (
    CalibrationConfig,
    ClusterConfig,
    Count,
    GoalConfig,
    GuardConfig,
    ModelConfig,
    ReuseConfig,
    SearchConfig,
    SpaceConfig,
    SplitConfig,
    Strict,
    TaskConfig,
)
from tasks.errors import InputError
from tasks.secrets import has_secret, hide_secrets


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
