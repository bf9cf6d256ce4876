"""Prefix reuse: blocks before the first edit give what they gave in the unedited model.

Their output is recorded once, at boundaries between blocks. In a trial, the blocks before a
boundary return it at once and the model's own forward does the rest, so that results are those of a
full forward pass to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from search.reuse.activations import Activations, Room
from search.reuse.blocks import Blocks, choose_boundaries

log = logging.getLogger(__name__)

MAX_PARTS = 64
"""Tensors in the output of one block, at most."""


@dataclass(frozen=True)
class _Leaf:
    """Stands for a tensor in the output of a block: its number in the batch, and its device."""

    index: int
    device: torch.device


@dataclass
class _Record:
    """Of one batch: the output of the block before each boundary, tensors replaced by numbers."""

    outputs: dict[int, Any] = field(default_factory=dict)


class PrefixReuse:
    """Records block boundaries of an unedited model and starts later passes there.

    `start` is the place of the first block that differs from the unedited model; set it before a
    pass. `ahead`: places at which passes will start that follow one over the unedited model, which
    keeps them on its way. Boundaries are chosen for the places in `wanted`, as many as `room`
    takes. Whether a model supports it is proved on its own first batch: every boundary has to give
    the logits of a full pass, `torch.equal`. A model whose blocks run twice or in another order
    (ALBERT) runs whole instead; `refused` says why. Not thread-safe.
    """

    def __init__(self, blocks: Blocks, wanted: Sequence[int], room: Room | None = None) -> None:
        """Nothing runs yet."""
        self.blocks = blocks
        self.start = 0
        self.ahead: tuple[int, ...] = ()
        self.expected_tokens = 0
        self.refused = "" if len(blocks) else "the order of its stacks is not known"
        self.boundaries: tuple[int, ...] | None = None
        self.activations = Activations(room or Room())
        self._wanted = [place for place in wanted if 0 < place < len(blocks)]
        self._records: dict[str, _Record] = {}
        self._proven: set[int] = set()

    def known(self, key: str) -> bool:
        """Whether nothing of this batch is left to record."""
        useless = bool(self.refused) or not self._wanted or self.boundaries == ()
        return useless or key in self._records

    def record(self, keys: Sequence[tuple[str, int, Callable[[], Tensor]]]) -> None:
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
        parts = [part for output in known.outputs.values() for part in _parts(output)]
        leaves = [part for part in parts if isinstance(part, _Leaf)]
        if len(leaves) < sum(part is not None for part in parts):
            return False
        if not self.activations.adopt(key, {leaf.index for leaf in leaves}):
            return False
        self._records[key] = _Record(dict(known.outputs))
        return True

    def keeping(self, key: str, run: Callable[[], Tensor]) -> Tensor:
        """What `run` gives, a whole pass over the batch `key` of the unedited model.

        On its way the places `ahead` are kept, where all of them have room, for `replaying`. Each
        is proved on the first batch, as `record` does: there `run` is called again from it.
        """
        wanted = self._needed([place for place in self.ahead if place < len(self.blocks)])
        if self.refused or not wanted or key in self._records:
            return run()
        found: list[Tensor] = []
        seen = self._watch(lambda: found.append(run()), wanted)
        if not found:  # its blocks return what cannot be kept
            return run()
        size = sum(map(_bytes, seen.values()))
        if not self.refused and self.activations.fits(size, found[0].is_cuda):
            try:
                self._records[key] = self._store(key, seen)
            except OSError as error:
                self._give_up(key, error)
            else:
                self._check(key, run, found[0], [p for p in wanted if p not in self._proven])
        return found[0]

    @contextmanager
    def replaying(self, key: str) -> Iterator[int]:
        """Let a pass over the batch `key` start at the nearest boundary; yields its place."""
        record = self._records.get(key)
        kept = () if record is None else record.outputs
        place = max((b for b in kept if b <= self.start), default=0)
        if self.refused or not place or record is None:
            yield 0
            return
        try:
            outputs = self._outputs(key, record, place)
        except (OSError, SafetensorError) as error:  # someone tidied up the scratch folder
            log.warning("stored activations are missing, running a full pass: %s", error)
            self.forget([key])
            outputs = {}
        with ExitStack() as stack:
            for (first, stop), output in outputs.items():
                for module in self.blocks.modules[first:stop]:
                    stack.enter_context(_returning(module, output))
            yield place if outputs else 0

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
        encoder = self.blocks.encoder
        ranges = [(0, encoder), (encoder, place)] if place > encoder > 0 else [(0, place)]
        return {
            (first, stop): self._load(key, record.outputs[stop])
            for first, stop in ranges
            if stop in record.outputs  # else a pass through the encoder alone
        }

    def _choose(self, batches: Sequence[tuple[str, int, Callable[[], Tensor]]]) -> None:
        key, tokens, run = min(batches, key=lambda entry: entry[1])
        places = self._needed(range(1, len(self.blocks)))
        seen = self._watch(run, places)
        if self.refused:
            log.info("every pass starts at the first block: %s", self.refused)
            return
        sizes = {place: max(1, _bytes(output)) for place, output in seen.items()}
        total = max(self.expected_tokens, sum(entry[1] for entry in batches))
        cost = max(sizes.values()) * total / tokens
        room = int(self.activations.room.total_bytes // cost)
        chosen = choose_boundaries(self._wanted, room - bool(self.blocks.encoder))
        self.boundaries = self._needed(chosen) if room > 0 else ()
        self._prove(key, run, seen)

    def _needed(self, places: Sequence[int]) -> tuple[int, ...]:
        """`places`, with the end of the encoder before any in the decoder."""
        encoder = self.blocks.encoder
        extra = {encoder} if encoder and any(place >= encoder for place in places) else set()
        return tuple(sorted({*places, *extra}))

    def _prove(self, key: str, run: Callable[[], Tensor], seen: dict[int, Any]) -> None:
        """Compare a pass from every chosen boundary with a full one, on the unedited model."""
        chosen = {place: seen[place] for place in self.boundaries or () if place in seen}
        try:
            self._records[key] = self._store(key, chosen)
        except OSError as error:
            self._give_up(key, error)
            return
        self._check(key, run, run(), self.boundaries or ())

    def _check(
        self, key: str, run: Callable[[], Tensor], whole: Tensor, places: Sequence[int]
    ) -> None:
        """Refuse to begin anywhere but at the first block unless all `places` give `whole`."""
        before = self.start
        try:
            for place in places:
                self.start = place
                with self.replaying(key):
                    same = torch.equal(run(), whole)
                if not same:
                    self.refused = f"a pass from block {place} differs from a full one"
                    log.warning("every pass starts at the first block: %s", self.refused)
                    self.forget([key])
                    return
                self._proven.add(place)
        finally:
            self.start = before

    def _watch(self, run: Callable[[], object], places: Sequence[int]) -> dict[int, Any]:
        """Run a full pass and copy the output of the block before each of `places`."""
        calls: list[int] = []
        seen: dict[int, Any] = {}
        copies: dict[int, tuple[Tensor, Tensor]] = {}

        def copied(tensor: Tensor) -> Tensor:
            # By identity: T5 hands the same position bias from block to block. The original is
            # held too, so that no other tensor takes its identity.
            if id(tensor) not in copies:
                copies[id(tensor)] = (tensor, tensor.clone())
            return copies[id(tensor)][1]

        def watch(place: int) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:
                calls.append(place)
                if place + 1 in places:
                    seen[place + 1] = _mapped(output, copied)

            return hook

        handles = [m.register_forward_hook(watch(n)) for n, m in enumerate(self.blocks.modules)]
        try:
            run()
        except _OpaqueError as error:
            self.refused = str(error)
        finally:
            for handle in handles:
                handle.remove()
        if calls != list(range(len(calls))) and not self.refused:
            self.refused = "its blocks do not run once each in their order"
        return seen

    def _store(self, key: str, seen: dict[int, Any]) -> _Record:
        numbers: dict[int, _Leaf] = {}
        record = _Record()
        for place, output in sorted(seen.items()):
            free = count(place * MAX_PARTS)  # the same number for the same part in every process

            def stored(tensor: Tensor, free: Iterator[int] = free) -> _Leaf:
                if id(tensor) not in numbers:
                    leaf = _Leaf(next(free), tensor.device)
                    numbers[id(tensor)] = leaf
                    self.activations.keep(key, leaf.index, tensor)
                return numbers[id(tensor)]

            record.outputs[place] = _mapped(output, stored)
        return record

    def _load(self, key: str, output: Any) -> Any:
        if isinstance(output, _Leaf):
            return self.activations.load(key, output.index, output.device)
        if isinstance(output, tuple):
            return tuple(self._load(key, part) for part in output)
        return output


class _OpaqueError(TypeError):
    """The output of a block holds what cannot be recorded."""


def _mapped(output: Any, convert: Callable[[Tensor], Any]) -> Any:
    if isinstance(output, Tensor):
        return convert(output)
    if type(output) is tuple:
        return tuple(_mapped(part, convert) for part in output)
    if output is None or isinstance(output, bool | int | float):
        return output
    raise _OpaqueError(f"its blocks return a {type(output).__name__}")


def _parts(output: Any) -> Iterator[Any]:
    if isinstance(output, tuple):
        for part in output:
            yield from _parts(part)
    else:
        yield output


def _bytes(output: Any) -> int:
    if isinstance(output, Tensor):
        return output.numel() * output.element_size()
    return sum(map(_bytes, output)) if isinstance(output, tuple) else 0


@contextmanager
def _returning(module: nn.Module, output: Any) -> Iterator[None]:
    """Let `module` return `output` at once."""
    own = module.__dict__.get("forward")
    module.forward = lambda *arguments, **options: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
