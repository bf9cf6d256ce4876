"""The blocks of a model in the order in which a forward pass runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
        places = [self.place_of.get(i.matrix, 0) for i in composition.interventions]
        return min(places, default=len(self))

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


def choose_boundaries(places: Sequence[int], room: int) -> tuple[int, ...]:
    """The `room` places at which to start that leave the fewest blocks to run again.

    A pass for a first edit at one of `places` starts at the nearest chosen place at or before it,
    else at 0. All places count alike; the choice is exact, by dynamic programming. Ascending.
    """
    wanted = sorted({place for place in places if place > 0})
    if len(wanted) <= room:
        return tuple(wanted)
    counts = [sum(place == one for place in places) for one in wanted]

    def waste(start: int, first: int, stop: int) -> int:
        return sum(counts[i] * (wanted[i] - start) for i in range(first, stop))

    # best[i]: least waste of wanted[i:] when wanted[i] is chosen, and what is chosen from there.
    best: dict[int, tuple[int, tuple[int, ...]]] = {
        i: (waste(wanted[i], i, len(wanted)), (wanted[i],)) for i in range(len(wanted))
    }
    for _ in range(1, room):
        best = {
            i: min(
                [
                    (waste(wanted[i], i, j) + cost, (wanted[i], *chosen))
                    for j, (cost, chosen) in best.items()
                    if j > i
                ]
                + [(waste(wanted[i], i, len(wanted)), (wanted[i],))]
            )
            for i in range(len(wanted))
        }
    if room < 1:
        return ()
    return min((waste(0, 0, i) + cost, chosen) for i, (cost, chosen) in best.items())[1]
