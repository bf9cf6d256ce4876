"""Every format by its name: those built in, and those that installed packages bring."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from search.export.dense import Dense
from search.export.factored import Factored
from search.export.format import Format
from search.export.lora import Lora
from search.export.patch import Patch, Recipe
from tasks.errors import InputError, nearest
from tasks.plugins import Plugins

GROUP = "laser_search.formats"
"""The entry point group in which a package names its formats."""

FORMATS: dict[str, Format] = {
    one.name: one for one in (Dense(), Factored(), Patch(), Recipe(), Lora())
}


def _fault(found: object) -> str:
    return "" if isinstance(found, Format) else "is not a search.export.format.Format"


_PLUGINS: Plugins[Format] = Plugins(GROUP, "format", FORMATS, _fault)


def get_format(name: str) -> Format:
    """The format called `name`. Raises InputError."""
    found = FORMATS.get(name) or _PLUGINS.get(name)
    if found is None:
        known = [*FORMATS, *_PLUGINS.names()]
        raise InputError(
            f"format {name!r} does not exist; expected one of {', '.join(known)}"
            + nearest(name, known)
        )
    return found


def all_formats() -> list[Format]:
    """The built-in formats, then the installed ones that can be used."""
    return [*FORMATS.values(), *_PLUGINS.usable()]


def parameters(folder: Path) -> int:
    """Numbers in the safetensors files of an export."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118  # no mapping
                size = 1
                for length in stream.get_slice(name).get_shape():
                    size *= length
                total += size
    return total
