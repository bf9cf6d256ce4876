"""What a study is a study of: its id, its model's weights, its data, the versions that began it."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search.config import LATER, StudyConfig
from search.sections import CalibrationConfig
from search.study.sealed_files import read_sealed_json, write_sealed_json
from search.witness import digest_file
from tasks.base import Example
from tasks.errors import InputError
from tasks.foreign import words_of

FILE = "study.json"
_MODEL_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")
_PACKAGES = ("laser-search", "torch", "transformers", "optuna", "ray")


@dataclass(frozen=True)
class Digests:
    """Digests of what a study's trials depend on, as it is now; see Identity."""

    weights: str
    checkpoint: str
    examples: str
    settings: str
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """Written once, when a study begins; a resumed study must find the same world.

    `weights` digests the searched matrices' bytes, `checkpoint` all files of the model,
    `examples` the questions and their split, `settings` what else in the configuration decides
    what a trial gives; `asked` has those settings by their keys. `accepted`: sentences on what
    changed since, with their dates, where somebody said that it may.
    """

    study_id: str
    created: str
    versions: dict[str, str]
    weights: str
    checkpoint: str
    examples: str
    settings: str
    asked: dict[str, Any] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)

    @staticmethod
    def new(digests: Digests) -> Identity:
        """A new study's identity."""
        return Identity(uuid.uuid4().hex, _now(), own_versions(), **asdict(digests))

    def write(self, folder: Path) -> None:
        """Durably write study.json; a folder without it holds no study."""
        write_sealed_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> Identity:
        """Read study.json. Raises InputError if the folder holds no study."""
        try:
            found = Identity(**read_sealed_json(folder / FILE))
            found.check_shape()
            return found
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} contains no study; start one with laser-search launch"
            ) from None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{folder / FILE} is damaged ({words_of(error)}); restore it"
            ) from None

    def check_shape(self) -> None:
        """Raises ValueError where a value is not what it should be; the id names files."""
        if not isinstance(self.study_id, str) or not re.fullmatch(r"\w[\w-]{0,99}", self.study_id):
            raise ValueError(f"study_id is {self.study_id!r}, no name")
        for name in ("created", "weights", "checkpoint", "examples", "settings"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected text")
        for name, kind in (("versions", dict), ("asked", dict), ("accepted", list)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}")

    def check(self, digests: Digests, *, accept: bool = False) -> Identity:
        """The identity to go on with: this one, or with `accept` one that has what changed.

        Raises InputError if anything that trials depend on is not as the study began; `accept`
        helps only where the recorded trials stay true.
        """
        for what, then, now in (
            ("weights of the searched matrices", self.weights, digests.weights),
            ("files of the model", self.checkpoint, digests.checkpoint),
            ("questions or their split", self.examples, digests.examples),
        ):
            if then != now:
                raise _incomparable(
                    f"the {what} changed since the study began ({then[:12]} then, {now[:12]} now)"
                )
        changes, sound = self._changes(digests)
        if not changes:
            return self
        said = "; ".join(changes)
        if not sound:
            raise _incomparable(said)
        if not accept:
            raise InputError(
                f"{said}; the recorded trials remain valid, so undo the change or resume with "
                "--accept-change"
            )
        return replace(
            self,
            versions=own_versions(),
            settings=digests.settings,
            asked=digests.asked,
            accepted=[*self.accepted, f"{_now()}: {said}"],
        )

    def _changes(self, digests: Digests) -> tuple[list[str], bool]:
        """What differs among settings and versions, and whether recorded trials stay true."""
        changes, sound = [], True
        if self.settings != digests.settings:
            keys = [k for k in {**self.asked, **digests.asked} if _differs(self, digests, k)]
            for key in keys:
                then, now = self.asked.get(key), digests.asked.get(key)
                changes.append(f"{key} was {then!r} when the study began and is {now!r} now")
                sound = sound and _is_sound(key, then, now)
            if not keys:  # begun by a version that kept no settings
                changes, sound = ["the settings in study.yaml changed since the study began"], False
        now_versions = own_versions()
        for name in _DECISIVE:
            then = self.versions.get(name, now_versions[name])
            if then != now_versions[name]:
                changes.append(f"the study began with {name} {then}, this is {now_versions[name]}")
        return changes, sound


_DECISIVE = ("laser-search", "torch", "transformers", "optuna")
"""Packages that have a part in what a trial gives or which comes next; Ray has none."""

_SOUND = (
    "search.strategy",
    "search.seed",
    "search.pruner",
    "search.race_error",
    "space.max_interventions",
    "tokens_per_batch",
    "products",
)
"""Settings that say what comes next, or change results by rounding alone."""


def _is_sound(key: str, then: Any, now: Any) -> bool:
    """Whether trials recorded under `then` mean the same under `now`.

    A range of rho may be moved. Of lists, matrices and layers Optuna keeps the places, which would
    be those of others.
    """
    if key in ("space.rho.low", "space.rho.high"):
        return isinstance(then, float) and isinstance(now, float)
    if key == "products":  # LASER's own low rank is another cut, not another rounding
        return "svd-lowrank" not in (then, now)
    return key in _SOUND


def _differs(identity: Identity, digests: Digests, key: str) -> bool:
    nothing = object()
    return bool(identity.asked.get(key, nothing) != digests.asked.get(key, nothing))


def _incomparable(said: str) -> InputError:
    return InputError(
        f"{said}; its trials would not be comparable: restore it or launch a new study"
    )


def own_versions() -> dict[str, str]:
    """Versions of this program and of what its numbers come from, by package."""
    return {name: version(name) for name in _PACKAGES}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def digest_weights(keys: Mapping[str, str]) -> str:
    """One digest over the content keys of the searched matrices, by address."""
    return _sha256(f"{name}={key}" for name, key in sorted(keys.items()))


def digest_examples(
    validation: Iterable[Example],
    test: Iterable[Example],
    confirm: Iterable[Example] = (),
    sample: Iterable[Example] = (),
) -> str:
    """One digest over the questions of all parts, whatever their order in the file.

    `sample`: the general text that trials are scored on.
    """
    lines = []
    parts = {"validation": validation, "test": test, "confirm": confirm, "sample": sample}
    for part, examples in parts.items():
        for x in examples:
            facts = asdict(x)
            if not x.task:  # of the only task; nothing that the question is
                del facts["task"]
            lines.append(json.dumps([part, facts], sort_keys=True, default=dict))
    return _sha256(sorted(lines))


def digest_checkpoint(folder: Path, known: Mapping[Path, str] | None = None) -> str:
    """One digest over the model's and tokenizer's files, every byte of them.

    `known`: digests of files that need not be read again.
    """
    names = sorted(p for s in _MODEL_FILES for p in folder.glob(f"*{s}") if p.is_file())
    lines = []
    for path in names:
        lines.append(f"{path.name}={(known or {}).get(path) or digest_file(path)}")
    return _sha256(lines)


def digest_settings(config: StudyConfig) -> str:
    """One digest over the configuration, without where things are and when it ends."""
    return _sha256([json.dumps(_decisive(config), sort_keys=True)])


def flat_settings(config: StudyConfig) -> dict[str, Any]:
    """What `digest_settings` digests, by keys such as ``search.seed``."""
    return dict(_flat(_decisive(config)))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _decisive(config: StudyConfig) -> dict[str, Any]:
    elsewhere = {"factors", "storage", "cluster", "reuse", "guard"}  # no trial depends on these
    settings = config.model_dump(mode="json", exclude=elsewhere)
    if config.guard is not None and config.guard.worse_by is not None:  # but on a limit
        settings["guard"] = config.guard.model_dump(include={"worse_by", "sample_tokens"})
    for part, key in (
        ("search", "trials"),
        ("search", "stop"),
        ("search", "max_attempts"),
        ("model", "path"),
    ):
        del settings[part][key]
    for part, key, unused in LATER:
        if settings[part][key] == unused:  # so that a study of an earlier version goes on
            del settings[part][key]
    del settings["calibration"]["data"]  # its texts are compared, not where they are
    if settings["calibration"] == CalibrationConfig().model_dump(mode="json", exclude={"data"}):
        del settings["calibration"]
    if config.tasks is None:
        del settings["tasks"], settings["objective"]
    else:
        del settings["task"]
    for asked in settings.get("tasks") or [settings["task"]]:
        del asked["data"]
        if asked["tokenizer"] is None:
            del asked["tokenizer"]
    return settings


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
