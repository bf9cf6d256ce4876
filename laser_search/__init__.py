"""The public face of laser-search.

    import laser_search

    study = laser_search.search("openai-community/gpt2", questions, trials=50)
    study.verdict

Importing it makes `search`, `tasks` and `cluster` the packages of this installation, even if files
with these names are in the working folder or on PYTHONPATH. Each function is imported when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from laser_search.own_packages import claim

claim()

if TYPE_CHECKING:
    from laser_search.asking import evaluate
    from laser_search.searching import search
    from laser_search.writing import cut, export
    from search.results import Study
    from tasks.errors import InputError

__all__ = ["InputError", "Study", "cut", "evaluate", "export", "search"]

_PLACES = {
    "InputError": "tasks.errors",
    "Study": "search.results",
    "cut": "laser_search.writing",
    "evaluate": "laser_search.asking",
    "export": "laser_search.writing",
    "search": "laser_search.searching",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
