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

from search.durable import write_json
from tasks.base import Example
from tasks.errors import InputError

FILE = "study.json"
_PACKAGES = ("laser-search", "torch", "transformers", "optuna", "ray")


@dataclass(frozen=True)
class Identity:
    """Written once, when a study begins; a resumed study must find the same world.

    `weights` digests the searched matrices' bytes, `examples` the questions and their split.
    """

    study_id: str
    created: str
    versions: dict[str, str]
    weights: str
    examples: str

    @staticmethod
    def new(weights: str, examples: str) -> Identity:
        """A new study's identity."""
        versions = {name: version(name) for name in _PACKAGES}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Identity(uuid.uuid4().hex, now, versions, weights, examples)

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

    def check(self, weights: str, examples: str) -> None:
        """Raises InputError if the weights or the questions are not those the study began with."""
        for what, then, now in (
            ("weights of the searched matrices", self.weights, weights),
            ("questions or their split", self.examples, examples),
        ):
            if then != now:
                raise InputError(
                    f"the {what} changed since the study began ({then[:12]} then, {now[:12]} now); "
                    "its trials could not be compared: restore them or launch a new study"
                )


def digest_weights(keys: Mapping[str, str]) -> str:
    """One digest over the content keys of the searched matrices, by address."""
    return _sha256(f"{name}={key}" for name, key in sorted(keys.items()))


def digest_examples(validation: Iterable[Example], test: Iterable[Example]) -> str:
    """One digest over the questions of both parts, whatever their order in the file."""
    lines = []
    for part, examples in (("validation", validation), ("test", test)):
        for x in examples:
            lines.append(json.dumps([part, x.id, x.prompt, x.answer, x.choices, x.label]))
    return _sha256(sorted(lines))


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
