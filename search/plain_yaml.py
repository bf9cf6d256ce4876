"""YAML that a person wrote, in which no key may stand twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from tasks.errors import InputError
from tasks.foreign import reading


class _Once(yaml.SafeLoader):
    """Refuses a key that a mapping has already: YAML would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As SafeLoader's, of distinct keys."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise InputError(
                        f"{self.name} has the key {key.value!r} twice, in lines "
                        f"{seen[key.value]} and {line}; remove one"
                    )
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """What YAML `text`, read from `where`, says. Raises InputError if it is none."""
    try:
        with reading(where, "fix it; docs/configuration.md shows an example"):
            loader = _Once(text)
            loader.name = where
            try:
                return loader.get_single_data()
            finally:
                loader.dispose()
    except InputError as error:
        if isinstance(error.__cause__, yaml.YAMLError):
            said = " ".join(str(error.__cause__).split())
            raise InputError(f"{where} is not valid YAML: {said}") from None
        raise
