"""What a user asks of a platform, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from search.config import StudyConfig
from tasks.errors import InputError, nearest

Platform = Literal["slurm", "kuberay", "ray-up"]

SPARE_S = 100
"""Seconds that a driver may need after its grace, to write down what it has and to let go."""

KNOWN: dict[str, dict[str, str]] = {
    "kuberay": {
        "image": "",
        "volume": "",
        "mount": "/shared",
        "memory": "64Gi",
        "retries": "5",
        "secret": "",
    },
    "ray-up": {
        **{"hosts": "", "user": "ubuntu", "region": "us-west-2"},
        **{"instance": "g6.xlarge", "ami": "", "install": ""},
    },
}
"""What --option may set, with defaults; Slurm takes every option of sbatch."""

NEEDED = {"kuberay": ("image", "volume")}

_PLAIN = re.compile(r"[A-Za-z0-9_./:,@=+%\[\]*~-]*")


@dataclass(frozen=True)
class Request:
    """A study and where it is to run.

    `out` is its folder there, `gpus` and `cpus` are per node.

    `grace_s`: how long before the end the platform has to warn.
    """

    study: Path
    out: str
    nodes: int = 1
    gpus: int = 0
    cpus: int = 0
    grace_s: int = 20 + SPARE_S
    options: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The study's name as every platform takes it: lower case letters, digits and dashes."""
        name = re.sub(r"[^a-z0-9]+", "-", Path(self.out).name.lower()).strip("-")[:40].strip("-")
        return name or "laser-search"


def read_options(platform: Platform, words: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE words by name, with the platform's defaults. Raises InputError."""
    known = KNOWN.get(platform)
    found = dict(known or {})
    for word in words:
        name, equals, value = word.partition("=")
        name = name.removeprefix("--")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or (known is not None and not equals):
            raise InputError(f"--option {word!r} is not understood; write NAME=VALUE")
        if known is not None and name not in known:
            raise InputError(
                f"--option {name} does not exist for {platform}; expected one of {', '.join(known)}"
                f"{nearest(name, known)}"
            )
        if name != "install" and not _PLAIN.fullmatch(value):
            raise InputError(
                f"--option {word!r} contains a character that is not allowed in a {platform} value"
            )
        found[name] = value
    for name in NEEDED.get(platform, ()):
        if not found[name]:
            raise InputError(f"{platform} needs --option {name}=...; see docs/cluster.md")
    retries = found.get("retries", "0")
    if platform == "kuberay" and not (retries.isascii() and retries.isdigit()):
        raise InputError(f"--option retries={retries} is not a number; give one such as 5")
    return found


def local_paths(config: StudyConfig) -> list[str]:
    """Files and folders of this machine that a study names, which the nodes have to see too."""
    named = [config.model.path, config.factors, *(goal.data for goal in config.goals.values())]
    return [path for path in named if path is not None and Path(path).is_absolute()]
