"""What a study is a study of: its id, its model's weights, its data, the versions that began it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from search.config import StudyConfig
from search.durable import write_json
from tasks.base import Example
from tasks.errors import InputError

FILE = "study.json"
_MODEL_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")
_PACKAGES = ("laser-search", "torch", "transformers", "optuna", "ray")


@dataclass(frozen=True)
class World:
    """Digests of what a study's trials depend on, as it is now; see Identity."""

    weights: str
    checkpoint: str
    examples: str
    settings: str


@dataclass(frozen=True)
class Identity:
    """Written once, when a study begins; a resumed study must find the same world.

    `weights` digests the searched matrices' bytes, `checkpoint` all files of the model,
    `examples` the questions and their split, `settings` what else in the configuration decides
    what a trial gives.
    """

    study_id: str
    created: str
    versions: dict[str, str]
    weights: str
    checkpoint: str
    examples: str
    settings: str

    @staticmethod
    def new(world: World) -> Identity:
        """A new study's identity."""
        versions = {name: version(name) for name in _PACKAGES}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Identity(uuid.uuid4().hex, now, versions, **asdict(world))

    def write(self, folder: Path) -> None:
        """Durably write study.json; a folder without it holds no study."""
        write_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> Identity:
        """Read study.json. Raises InputError if the folder holds no study."""
        try:
            return Identity(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} holds no study; start one with laser-search launch"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder / FILE} is damaged ({error}); restore it") from None

    def check(self, world: World) -> None:
        """Raises InputError if anything that trials depend on is not as the study began."""
        for what, then, now in (
            ("weights of the searched matrices", self.weights, world.weights),
            ("files of the model", self.checkpoint, world.checkpoint),
            ("questions or their split", self.examples, world.examples),
            ("settings in study.yaml", self.settings, world.settings),
        ):
            if then != now:
                raise InputError(
                    f"the {what} changed since the study began ({then[:12]} then, {now[:12]} now); "
                    "its trials could not be compared: restore them or launch a new study"
                )


def digest_weights(keys: Mapping[str, str]) -> str:
    """One digest over the content keys of the searched matrices, by address."""
    return _sha256(f"{name}={key}" for name, key in sorted(keys.items()))


def digest_examples(
    validation: Iterable[Example], test: Iterable[Example], confirm: Iterable[Example] = ()
) -> str:
    """One digest over the questions of all parts, whatever their order in the file."""
    lines = []
    for part, examples in (("validation", validation), ("test", test), ("confirm", confirm)):
        for x in examples:
            facts = asdict(x)
            if not x.task:  # of the only task; nothing that the question is
                del facts["task"]
            lines.append(json.dumps([part, facts], sort_keys=True, default=dict))
    return _sha256(sorted(lines))


def digest_checkpoint(folder: Path) -> str:
    """One digest over the model's and tokenizer's files, every byte of them."""
    names = sorted(p for s in _MODEL_FILES for p in folder.glob(f"*{s}") if p.is_file())
    lines = []
    for path in names:
        with path.open("rb") as stream:
            lines.append(f"{path.name}={hashlib.file_digest(stream, 'blake2b').hexdigest()}")
    return _sha256(lines)


def digest_settings(config: StudyConfig) -> str:
    """One digest over the configuration, without where things are and when it ends."""
    settings = config.model_dump(mode="json", exclude={"factors", "storage", "cluster", "reuse"})
    for part, key in (
        ("search", "trials"),
        ("search", "stop"),
        ("search", "max_attempts"),
        ("model", "path"),
    ):
        del settings[part][key]
    if config.search.confirm is None:
        del settings["search"]["confirm"]
    if config.tasks is None:
        del settings["tasks"], settings["objective"]
    else:
        del settings["task"]
    for asked in settings.get("tasks") or [settings["task"]]:
        del asked["data"]
    return _sha256([json.dumps(settings, sort_keys=True)])


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
