"""`search`, `tasks` and `cluster` are common names: only ours may be imported under them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("cluster", "search", "tasks")
FOLDER = Path(__file__).resolve().parents[1]
"""The folder that holds this package and the three."""


class OwnPackages:
    """An import finder that looks for the three packages beside this one, and nowhere else."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of one of the three packages; None for all other modules."""
        if name not in NAMES:
            return None
        return PathFinder.find_spec(name, [str(FOLDER)], target)


def claim() -> None:
    """Find the three packages in this installation only, from now on."""
    if OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, OwnPackages)


def check() -> None:
    """Raise ImportError, as a sentence, where one of the three packages is not ours.

    One was imported from elsewhere before `claim`, or another installed package has overwritten
    it.
    """
    for name in NAMES:
        own = FOLDER / name / "__init__.py"
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded is not None and Path(loaded).resolve() != own:
            raise ImportError(
                f"{name!r} has been imported from {loaded}, which is not laser-search's; "
                "import laser_search first, or rename that file"
            )
        if not own.is_file() or "laser-search" not in own.read_text(encoding="utf-8"):
            raise ImportError(
                f"{own.parent} is not laser-search's: another installed package has overwritten "
                "it; install laser-search in an environment of its own"
            )
