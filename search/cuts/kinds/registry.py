"""Every kind by its name: those built in, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from search.cuts.kinds.base import Kind
from search.cuts.kinds.keep_bottom import KeepBottom
from search.cuts.kinds.keep_top import KeepTop
from search.cuts.kinds.prune import Prune, PrunePaper
from search.cuts.kinds.svd_lowrank import SvdLowrank, SvdLowrank20
from search.cuts.kinds.whitened import Whitened
from search.cuts.kinds.zero import Zero
from tasks.errors import InputError, nearest
from tasks.plugins import Plugins

GROUP = "laser_search.kinds"
"""The entry point group in which a package names its kinds."""

BUILT_IN: tuple[Kind, ...] = (
    KeepTop(),
    Whitened(),
    KeepBottom(),
    Zero(),
    Prune(),
    PrunePaper(),
    SvdLowrank(),
    SvdLowrank20(),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in BUILT_IN})


def _fault(found: object) -> str:
    return "" if isinstance(found, Kind) else "is not a search.cuts.kinds.base.Kind"


_PLUGINS: Plugins[Kind] = Plugins(GROUP, "kind", KINDS, _fault)


def get_kind(name: str) -> Kind:
    """The kind called `name`, built in or installed.

    Raises InputError with the nearest name, or when an installed one cannot be used.
    """
    if name in KINDS:
        return KINDS[name]
    found = _PLUGINS.get(name)
    if found is None:
        known = kind_names()
        raise InputError(
            f"kind {name!r} does not exist; expected one of {', '.join(known)}"
            + nearest(name, known)
        )
    return found


def kind_names() -> list[str]:
    """Names of the built-in kinds, then of the installed ones."""
    return [*KINDS, *_PLUGINS.names()]


def all_kinds() -> list[Kind]:
    """The built-in kinds, then the installed ones that can be used."""
    return [*KINDS.values(), *_PLUGINS.usable()]
