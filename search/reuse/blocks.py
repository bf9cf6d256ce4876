"""The blocks of a model in the order in which a forward pass runs them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import nn

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.weights.matrices import Matrix
from search.weights.stacks import find_stacks

IN_ORDER = ("", "encoder", "decoder")
"""Stacks whose place in a forward pass is known; a model with others runs whole every time."""


@dataclass(frozen=True)
class Blocks:
    """Blocks by their place, 0 first; those of an encoder stand before those of its decoder.

    `modules` [blocks], `names` alike; `place_of` the block of each matrix. `encoder`: how many of
    them are the encoder's, 0 in a model of one stack.
    """

    modules: tuple[nn.Module, ...]
    names: tuple[str, ...]
    place_of: dict[MatrixRef, int]
    encoder: int = 0

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self.modules)

    def first_edited(self, composition: Composition) -> int:
        """Place of the first block that `composition` changes; their number if it changes none."""
        return self.first_of(i.matrix for i in composition.interventions)

    def first_of(self, matrices: Iterable[MatrixRef]) -> int:
        """Place of the first block that holds one of `matrices`; how many there are if none."""
        return min((self.place_of.get(ref, 0) for ref in matrices), default=len(self))

    @staticmethod
    def of(model: Any, matrices: Iterable[Matrix]) -> Blocks:
        """The blocks of `model`; none where the order of its stacks is not known."""
        stacks = find_stacks(model)
        names = [stack.name for stack in stacks]
        if not set(names) <= set(IN_ORDER):
            return Blocks((), (), {})
        ordered = sorted(stacks, key=lambda stack: IN_ORDER.index(stack.name))
        blocks = [block.name for stack in ordered for block in stack.blocks]
        places = {name: place for place, name in enumerate(blocks)}
        encoder = len(ordered[0].blocks) if len(ordered) > 1 else 0
        return Blocks(
            tuple(model.get_submodule(name) for name in blocks),
            tuple(blocks),
            {m.ref: places[m.block] for m in matrices if m.block in places and not m.shared},
            encoder,
        )


def choose_boundaries(
    places: Sequence[int], room: float, depth: Callable[[int], float] = lambda place: 0.0
) -> tuple[int, ...]:
    """The boundaries at which to start that leave the fewest blocks to run again, within `room`.

    A pass for a first edit at one of `places` starts at the nearest chosen place at or before it,
    else at 0. Every boundary takes a room of 1, and what all share `depth` of the last of them,
    which does not fall from place to place. All places count alike; the choice is exact, by
    dynamic programming. Ascending.
    """
    asked = sorted(place for place in places if place > 0)
    sums = [0, *accumulate(asked)]

    def waste(start: int, stop: int) -> int:
        """Blocks run again of all that is asked from `start` on and before `stop`, from `start`."""
        first, end = bisect_left(asked, start), bisect_left(asked, stop)
        return sums[end] - sums[first] - start * (end - first)

    top = asked[-1] if asked else 0
    found: tuple[int, tuple[int, ...]] = (waste(0, top + 1), ())
    # best[i]: the least waste before i where i is the last of so many boundaries, and those.
    best: dict[int, tuple[int, tuple[int, ...]]]
    best = {i: (waste(0, i), (i,)) for i in range(1, top + 1)}
    count = 1
    while best:
        fitting = {i for i in best if count + depth(i) <= room}
        ends = [(best[i][0] + waste(i, top + 1), best[i][1]) for i in fitting]
        found = min([found, *ends], key=lambda end: (end[0], len(end[1]), end[1]))
        if not fitting or not found[0]:
            break
        best = {
            j: min(
                (cost + waste(i, j), (*chosen, j)) for i, (cost, chosen) in best.items() if i < j
            )
            for j in range(min(best) + 1, top + 1)
        }
        count += 1
    return found[1]
