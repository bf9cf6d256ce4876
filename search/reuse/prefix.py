"""Prefix reuse: blocks before the first edit give what they gave in the unedited model.

Their output is recorded once, at boundaries between blocks. In a trial, the blocks before a
boundary return it at once and the model's own forward does the rest, so that results are those of a
full forward pass to the bit. Where a pass fills a key-value cache, what those blocks wrote into it
is recorded too and put back, so that decoding goes on as after a full pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from search.reuse.activations import Activations, Room
from search.reuse.blocks import Blocks, choose_boundaries
from search.reuse.caches import Place, UnknownCacheError, find_cache, written
from search.reuse.outputs import OpaqueOutputError, is_same, mapped, parts_of, returning, size_bytes

log = logging.getLogger(__name__)

MAX_PARTS = 64
"""Tensors in the output of one block, at most, and in what it writes into a cache."""

Result = TypeVar("Result")
"""What a pass gives: a tensor, or several in tuples."""


@dataclass(frozen=True)
class _Leaf:
    """Stands for a tensor in the output of a block: its number in the batch, and its device."""

    index: int
    device: torch.device


@dataclass
class _Record:
    """Of one batch: the output of the block before each boundary, and what blocks wrote.

    `written`: by block, into which layers of a cache. As it is kept, a `_Leaf` for every tensor.
    """

    outputs: dict[int, Any] = field(default_factory=dict)
    written: dict[int, dict[Place, Any]] = field(default_factory=dict)

    def states(self) -> Iterator[Any]:
        """What was written, layer by layer."""
        for layers in self.written.values():
            yield from layers.values()

    def until(self, places: Sequence[int]) -> _Record:
        """What passes that begin at `places` need of it."""
        return _Record(
            {place: self.outputs[place] for place in places if place in self.outputs},
            {block: s for block, s in self.written.items() if block < max(places, default=0)},
        )


class PrefixReuse:
    """Records block boundaries of an unedited model and starts later passes there.

    `start` is the place of the first block that differs from the unedited model; set it before a
    pass. `ahead`: places at which passes will start that follow one over the unedited model, which
    keeps them on its way. Boundaries are chosen for the places in `wanted`, as many as `room`
    takes. Whether a model supports it is proved on its own first batch: every boundary has to give
    the logits of a full pass, `torch.equal`. A model whose blocks run twice or in another order
    (ALBERT) runs whole instead; `refused` says why. Not thread-safe.

    `fills_caches`: passes fill a key-value cache, which they are given or make. `share`: the part
    of the room that nothing is promised of when the boundaries are chosen.
    """

    def __init__(
        self,
        blocks: Blocks,
        wanted: Sequence[int],
        room: Room | Activations | None = None,
        *,
        fills_caches: bool = False,
    ) -> None:
        """Nothing runs yet. With `Activations` these are shared with whoever has them."""
        self.blocks = blocks
        self.start = 0
        self.ahead: tuple[int, ...] = ()
        self.expected_tokens = 0
        self.refused = "" if len(blocks) else "the order of its stacks is not known"
        self.boundaries: tuple[int, ...] | None = None
        self.activations = room if isinstance(room, Activations) else Activations(room or Room())
        self.fills_caches = fills_caches
        self.share = 1.0
        self._wanted = [place for place in wanted if 0 < place < len(blocks)]
        self._records: dict[str, _Record] = {}
        self._proven: set[int] = set()

    def for_prompts(self) -> PrefixReuse:
        """One for passes that fill caches, with the same blocks and the same room."""
        return PrefixReuse(self.blocks, self._wanted, self.activations, fills_caches=True)

    def known(self, key: str) -> bool:
        """Whether nothing of this batch is left to record."""
        useless = bool(self.refused) or not self._wanted or self.boundaries == ()
        return useless or key in self._records

    def record(self, keys: Sequence[tuple[str, int, Callable[[], object]]]) -> None:
        """Record batches on the unedited model: the key, tokens and forward pass of each.

        The boundaries are chosen at the first call, for `expected_tokens` or those of its batches.
        """
        missing = [entry for entry in keys if not self.known(entry[0])]
        if not missing:
            return
        if self.boundaries is None:
            self._choose(missing)
        for key, _, run in missing:
            if not self.known(key) and not self._adopt(key):
                seen = self._watch(run, self.boundaries or ())
                if self.refused:
                    self.forget_all()
                    return
                try:
                    self._records[key] = self._store(key, seen)
                except OSError as error:
                    self._give_up(key, error)

    def _adopt(self, key: str) -> bool:
        """Take what another process of this node has recorded of a batch, if all of it is there.

        What a block returns has the same parts for every batch, so a record of this process's own
        says which files those are; unless a part is a number, which may depend on the batch.
        """
        known = next(iter(self._records.values()), None)
        if known is None:
            return False
        every = [*known.outputs.values(), *known.states()]
        parts = [part for output in every for part in parts_of(output)]
        leaves = [part for part in parts if isinstance(part, _Leaf)]
        if len(leaves) < sum(part is not None for part in parts):
            return False
        if not self.activations.adopt(key, {leaf.index for leaf in leaves}):
            return False
        self._records[key] = _Record(dict(known.outputs), dict(known.written))
        return True

    def keeping(self, key: str, run: Callable[[], Result]) -> Result:
        """What `run` gives, a whole pass over the batch `key` of the unedited model.

        On its way the places `ahead` are kept, where all of them have room, for `replaying`. Each
        is proved on the first batch, as `record` does: there `run` is called again from it.
        """
        wanted = self._needed([place for place in self.ahead if place < len(self.blocks)])
        if self.refused or not wanted or key in self._records:
            return run()
        found: list[Result] = []
        seen = self._watch(lambda: found.append(run()), wanted)
        if not found:  # its blocks return what cannot be kept
            return run()
        size = sum(map(size_bytes, [*seen.outputs.values(), *seen.states()]))
        on_gpu = any(part.is_cuda for part in parts_of(found[0]))
        if not self.refused and self.activations.fits(size, on_gpu):
            try:
                self._records[key] = self._store(key, seen)
            except OSError as error:
                self._give_up(key, error)
            else:
                self._check(key, run, found[0], [p for p in wanted if p not in self._proven])
        return found[0]

    @contextmanager
    def keeping_for_now(self, place: int) -> Iterator[None]:
        """Within, whole passes over the unedited model keep what those from `place` on begin from.

        Until `ahead` and `start` are set for the latter; at the end what was kept is given up.
        """
        before = set(self._records)
        self.start, self.ahead = 0, (place,) if place else ()
        try:
            yield
        finally:
            self.start, self.ahead = 0, ()
            self.forget([key for key in self._records if key not in before])

    @contextmanager
    def replaying(self, key: str) -> Iterator[int]:
        """Let a pass over the batch `key` start at the nearest boundary; yields its place.

        Also at one that another process of this node has kept meanwhile.
        """
        if self.start and not self.refused and key not in self._records:
            self._adopt(key)
        record = self._records.get(key)
        kept = () if record is None else record.outputs
        place = max((b for b in kept if b <= self.start), default=0)
        if self.refused or not place or record is None:
            yield 0
            return
        try:
            outputs = self._outputs(key, record, place)
            states = {
                block: {layer: self._load(key, state) for layer, state in layers.items()}
                for block, layers in record.written.items()
                if block < place
            }
        except (OSError, SafetensorError) as error:  # someone tidied up the scratch folder
            log.warning("stored activations are missing, running a full pass: %s", error)
            self.forget([key])
            outputs = {}
        with ExitStack() as stack:
            for (first, stop), output in outputs.items():
                for block in range(first, stop):
                    module = self.blocks.modules[block]
                    stack.enter_context(returning(module, output, states.get(block, {})))
            yield place if outputs else 0

    @contextmanager
    def repeating(self, run: Callable[[], Result]) -> Iterator[Result]:
        """Yields what `run` gives, a whole pass; within, that pass begins at the last block.

        For trying what concerns that block and the head alone: of a model larger than memory, each
        whole pass reads all weights again. Nothing is kept, and nothing proved: what a pass gives
        within has to be compared with what was yielded.
        """
        place = len(self.blocks) - 1
        found: list[Result] = []
        seen = _Record()
        if place > 0 and not self.refused:
            seen = self._watch(lambda: found.append(run()), self._needed([place]))
        whole = found[0] if found else run()
        with ExitStack() as stack:
            if not self.refused:
                for (first, stop), at in self._ranges(place, seen.outputs).items():
                    for module in self.blocks.modules[first:stop]:
                        stack.enter_context(returning(module, seen.outputs[at], {}))
            yield whole

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what was recorded of these batches."""
        for key in keys:
            self._records.pop(key, None)
        self.activations.drop(keys)

    def forget_all(self) -> None:
        """Drop everything that was recorded."""
        self.forget(list(self._records))

    def _give_up(self, key: str, error: OSError) -> None:
        """A full disk costs speed, never a result."""
        self.refused = f"activations cannot be kept: {error}"
        log.warning("every pass starts at the first block: %s", self.refused)
        self.forget([*self._records, key])

    def _outputs(self, key: str, record: _Record, place: int) -> dict[tuple[int, int], Any]:
        """What to return from the blocks of each range, so that a pass starts at `place`."""
        return {
            blocks: self._load(key, record.outputs[stop])
            for blocks, stop in self._ranges(place, record.outputs).items()
        }

    def _ranges(self, place: int, kept: Mapping[int, Any]) -> dict[tuple[int, int], int]:
        """Ranges of blocks that a pass from `place` leaves out: whose output stands for each."""
        encoder = self.blocks.encoder
        ranges = [(0, encoder), (encoder, place)] if place > encoder > 0 else [(0, place)]
        # What is not kept: a pass through the encoder alone.
        return {(first, stop): stop for first, stop in ranges if stop in kept}

    def _choose(self, batches: Sequence[tuple[str, int, Callable[[], object]]]) -> None:
        key, tokens, run = min(batches, key=lambda entry: entry[1])
        places = self._needed(range(1, len(self.blocks)))
        found: list[object] = []
        seen = self._watch(lambda: found.append(run()), places)
        if self.refused:
            log.info("every pass starts at the first block: %s", self.refused)
            return
        scale = max(self.expected_tokens, sum(entry[1] for entry in batches)) / tokens
        cost = max(max(1, size_bytes(output)) for output in seen.outputs.values()) * scale
        own = [
            sum(map(size_bytes, seen.written.get(n, {}).values())) for n in range(len(self.blocks))
        ]
        depth = [0.0, *(total * scale / cost for total in accumulate(own))]
        room = int(self.activations.free_bytes * self.share) / cost
        chosen = choose_boundaries(
            self._wanted, room - bool(self.blocks.encoder), depth.__getitem__
        )
        self.boundaries = self._needed(chosen) if room >= 1 else ()
        last = max(self.boundaries, default=0)
        self.activations.promised += int((len(self.boundaries) + depth[last]) * cost)
        self._prove(key, run, seen, found[0])

    def _needed(self, places: Sequence[int]) -> tuple[int, ...]:
        """`places`, with the end of the encoder before any in the decoder."""
        encoder = self.blocks.encoder
        extra = {encoder} if encoder and any(place >= encoder for place in places) else set()
        return tuple(sorted({*places, *extra}))

    def _prove(self, key: str, run: Callable[[], object], seen: _Record, whole: object) -> None:
        """Compare a pass from every chosen boundary with the full one that was seen."""
        try:
            self._records[key] = self._store(key, seen.until(self.boundaries or ()))
        except OSError as error:
            self._give_up(key, error)
            return
        self._check(key, run, whole, self.boundaries or ())

    def _check(
        self, key: str, run: Callable[[], object], whole: object, places: Sequence[int]
    ) -> None:
        """Refuse to begin anywhere but at the first block unless all `places` give `whole`."""
        before = self.start
        try:
            for place in places:
                self.start = place
                with self.replaying(key):
                    same = is_same(run(), whole)
                if not same:
                    self.refused = f"a pass from block {place} differs from a full one"
                    log.warning("every pass starts at the first block: %s", self.refused)
                    self.forget([key])
                    return
                self._proven.add(place)
        finally:
            self.start = before

    def _watch(self, run: Callable[[], object], places: Sequence[int]) -> _Record:
        """Run a full pass and copy the output of the block before each of `places`.

        With what the blocks before the last of them wrote into a cache, which is not copied: nobody
        changes it, since such a cache grows by concatenation.
        """
        calls: list[int] = []
        seen = _Record()
        copies: dict[int, tuple[Tensor, Tensor]] = {}
        last = max(places, default=0) if self.fills_caches else 0
        layers: set[Place] = set()

        def copied(tensor: Tensor) -> Tensor:
            # By identity: T5 hands the same position bias from block to block. The original is
            # held too, so that no other tensor takes its identity.
            if id(tensor) not in copies:
                copies[id(tensor)] = (tensor, tensor.clone())
            return copies[id(tensor)][1]

        def watch(place: int) -> Callable[..., None]:
            def hook(module: nn.Module, arguments: Any, options: Any, output: Any) -> None:
                calls.append(place)
                if place + 1 in places:
                    seen.outputs[place + 1] = mapped(output, copied)
                if place < last:
                    cache = find_cache([*arguments, *options.values()])
                    seen.written[place] = {} if cache is None else written(cache, layers)
                    layers.update(seen.written[place])

            return hook

        handles = [
            module.register_forward_hook(watch(n), with_kwargs=True)
            for n, module in enumerate(self.blocks.modules)
        ]
        try:
            run()
        except (OpaqueOutputError, UnknownCacheError) as error:
            self.refused = str(error)
        finally:
            for handle in handles:
                handle.remove()
        if calls != list(range(len(calls))) and not self.refused:
            self.refused = "its blocks do not run once each in their order"
        return seen

    def _store(self, key: str, seen: _Record) -> _Record:
        numbers: dict[int, _Leaf] = {}
        record = _Record()

        def kept(output: Any, first: int) -> Any:
            free = count(first * MAX_PARTS)  # the same number for the same part in every process

            def stored(tensor: Tensor) -> _Leaf:
                if id(tensor) not in numbers:
                    leaf = _Leaf(next(free), tensor.device)
                    numbers[id(tensor)] = leaf
                    self.activations.keep(key, leaf.index, tensor)
                return numbers[id(tensor)]

            return mapped(output, stored)

        for place, output in sorted(seen.outputs.items()):
            record.outputs[place] = kept(output, place)
        for block, layers in sorted(seen.written.items()):
            states = kept(tuple(layers.values()), len(self.blocks) + 1 + block)
            record.written[block] = dict(zip(layers, states, strict=True))
        return record

    def _load(self, key: str, output: Any) -> Any:
        if isinstance(output, _Leaf):
            return self.activations.load(key, output.index, output.device)
        if isinstance(output, tuple):
            return tuple(self._load(key, part) for part in output)
        return output
