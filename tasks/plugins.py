"""What installed packages bring: classes found by entry point, loaded when they are named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from tasks.errors import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Plugins(Generic[T]):
    """The plug-ins of one entry point group.

    `word`: what one is called in messages. `built_in`: names that stay what they are. `fault` says
    what is wrong with a loaded object, empty if it may be used. `classes`: a class is what is
    wanted; else one that an entry point names is made an object, without arguments.
    """

    def __init__(
        self,
        group: str,
        word: str,
        built_in: Collection[str],
        fault: Callable[[Any], str],
        classes: bool = False,
    ) -> None:
        self._classes = classes
        self._group = group
        self._word = word
        self._built_in = built_in
        self._fault = fault
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """Names of the installed ones. Reads the metadata of packages, and imports none."""
        return list(self._points())

    def get(self, name: str) -> T | None:
        """The one called `name`, None if there is none. Raises InputError if it cannot be used."""
        if name not in self._loaded:
            point = self._points().get(name)
            if point is None:
                return None
            self._loaded[name] = self._load(point)
        return self._loaded[name]

    def usable(self) -> list[T]:
        """Every installed one by name; those that cannot be used are left out with a warning."""
        found = []
        for name in self.names():
            try:
                one = self.get(name)
            except InputError as error:
                log.warning("%s", error)
                continue
            if one is not None:
                found.append(one)
        return found

    def _points(self) -> dict[str, EntryPoint]:
        found = entry_points(group=self._group)
        return {point.name: point for point in found if point.name not in self._built_in}

    def _load(self, point: EntryPoint) -> T:
        """What an entry point names."""
        where = f"{self._word} {point.name!r} of {point.value}"
        try:
            found = point.load()
            one: Any = found() if isinstance(found, type) and not self._classes else found
            fault = self._fault(one)
        except Exception as error:  # foreign code may raise anything; its name is what helps
            raise InputError(
                f"{where} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not fault and getattr(one, "name", None) != point.name:
            fault = f"calls itself {getattr(one, 'name', None)!r}"
        if fault:
            raise InputError(f"{where} {fault}")
        loaded: T = one
        return loaded
