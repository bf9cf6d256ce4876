"""Which single cuts are worth putting together."""

from __future__ import annotations

from collections.abc import Iterable

from search.space import Choice, Space
from search.strategies.base import Tried


def survivors(space: Space, tried: Iterable[Tried], baseline: Tried | None) -> list[Choice]:
    """The single choices that beat the unedited model, the best first."""
    if baseline is None:
        return []
    found = []
    for one in tried:
        if one.merit > baseline.merit:
            choices = space.choices(one.composition)
            if choices is not None and len(choices) == 1:
                found.append((one.merit, -one.number, choices[0]))
    found.sort(key=lambda item: item[:2], reverse=True)
    return [choice for _, _, choice in found]
