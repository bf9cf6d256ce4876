"""Forward passes over batches: from the nearest boundary, in halves where memory is short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from search.cuts.refs import MatrixRef
from search.reuse.activations import Room
from search.reuse.batching import Batch
from search.reuse.blocks import Blocks
from search.reuse.last_block import LastBlock
from search.reuse.prefix import PrefixReuse
from search.weights.matrices import Matrix

log = logging.getLogger(__name__)

Begun = TypeVar("Begun")
"""What the first pass over prompts gives: a tensor, or several in tuples."""


class Prompts(Protocol):
    """A batch of prompts that are to be continued."""

    @property
    def tokens(self) -> int:
        """Of the prompts, padding included."""
        ...

    def key(self) -> str:
        """Digest of what the model reads, which no other batch has."""
        ...

    def sample(self) -> Prompts:
        """Few of the prompts as a batch of their own: a proof takes a pass for every boundary."""
        ...


class ForwardPasses:
    """Runs batches of a model, whole or from a boundary of `prefix`.

    The first pass over prompts, which fills a key-value cache, begins at a boundary of `prompts`.

    A batch that does not fit into memory is halved until it does, and from then on every batch of
    more than `limit_tokens` is, so that a pass fails once and not once per trial. Halves give the
    results of the whole but for the rounding of another batch size.
    """

    def __init__(self, prefix: PrefixReuse | None = None, last: LastBlock | None = None) -> None:
        """Without a `prefix` every pass begins at the first block, without `last` it ends whole."""
        self.prefix = prefix or PrefixReuse(Blocks((), (), {}), ())
        self.prompts = self.prefix.for_prompts()
        self.last = last
        self.limit_tokens: int | None = None
        self.answered: Callable[[], None] = lambda: None
        """Called after each batch of questions; whoever asks them in other ways calls it too."""
        self._keys: dict[int, tuple[Batch | Prompts, str]] = {}
        self._halves: dict[int, tuple[Batch, Batch]] = {}

    @staticmethod
    def of(
        model: Any,
        matrices: Sequence[Matrix],
        searched: Collection[MatrixRef] | None = None,
        room: Room | None = None,
    ) -> ForwardPasses:
        """Passes of `model` that begin at the first edit and end with what is scored.

        `searched`: matrices that will be edited (default: all), before whose blocks activations are
        kept, as far as `room` goes.
        """
        blocks = Blocks.of(model, matrices)
        places = [
            place for ref, place in blocks.place_of.items() if searched is None or ref in searched
        ]
        last = LastBlock(model, matrices, blocks.names[-1]) if blocks.names else None
        return ForwardPasses(PrefixReuse(blocks, places, room), last)

    def recorded(self, batches: Sequence[Batch], prompts: Sequence[Prompts] = ()) -> bool:
        """Whether `record` and `record_prompts` have nothing to do."""
        return all(
            self.prefix.known(self._key(b)) for batch in batches for b in self._fit(batch)
        ) and all(self.prompts.known(self._key(batch)) for batch in prompts)

    def expect(self, batches: Iterable[Batch], prompts: Iterable[Prompts] = ()) -> None:
        """Say what will be recorded in all, so that boundaries are chosen for the whole of it.

        Prompts take half of the room, and all of it where nothing else is recorded.
        """
        self.prefix.expected_tokens = sum(batch.tokens for batch in batches)
        self.prompts.expected_tokens = sum(batch.tokens for batch in prompts)
        self.prompts.share = 0.5 if self.prefix.expected_tokens else 1.0

    def record(self, batches: Sequence[Batch], forward: Callable[[Batch], Tensor]) -> None:
        """Keep the unedited model's activations for these batches.

        `forward` runs one whole; what it returns is not read.
        """
        with torch.inference_mode():
            while True:
                fitting = [b for batch in batches for b in self._fit(batch)]
                try:
                    self.prefix.record(
                        [(self._key(b), b.tokens, partial(forward, b)) for b in fitting]
                    )
                    return
                except (RuntimeError, MemoryError) as error:
                    self._lower(max(fitting, key=lambda b: (b.divides, b.tokens)), error)

    def record_prompts(
        self, batches: Sequence[Prompts], first: Callable[[Any], tuple[Tensor, ...]]
    ) -> None:
        """Keep the unedited model's activations and caches for these prompts; before `record`.

        `first` makes the first pass over a batch, as for `begin`. What cannot be kept, for lack of
        memory too, costs speed alone.
        """
        missing = [b for b in batches if not self.prompts.known(self._key(b))]
        if not missing:
            return
        expected = sum(batch.tokens for batch in missing)
        self.prompts.expected_tokens = max(self.prompts.expected_tokens, expected)
        sample = min(missing, key=lambda b: b.tokens).sample()
        proof = [sample] if self.prompts.boundaries is None else []
        try:
            with torch.inference_mode():
                for tried in (proof, missing):
                    entries = [(self._key(b), b.tokens, partial(first, b)) for b in tried]
                    self.prompts.record(entries)
            if sample.key() not in map(self._key, missing):
                self.prompts.forget([sample.key()])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.prompts.refused = "out of memory"
            log.warning("prompts are read from the first block on: %s", self.prompts.refused)
            self.prompts.forget_all()

    def begin(self, batch: Prompts, first: Callable[[], Begun]) -> Begun:
        """What `first` gives: a pass over prompts that fills a cache, from the nearest boundary.

        It may be called again, for a proof; what it gave at its first call is right.
        """
        prompts, key = self.prompts, self._key(batch)
        prompts.start, prompts.ahead = self.prefix.start, self.prefix.ahead
        if prompts.ahead:
            return prompts.keeping(key, first)
        with prompts.replaying(key):
            return first()

    @contextmanager
    def keeping_for_now(self, place: int) -> Iterator[None]:
        """Keep for now, of `prefix` and `prompts`; see `PrefixReuse.keeping_for_now`."""
        with self.prompts.keeping_for_now(place), self.prefix.keeping_for_now(place):
            yield

    def forget_all(self) -> None:
        """Drop everything that was recorded."""
        self.prefix.forget_all()
        self.prompts.forget_all()

    def run(self, batch: Batch, read: Callable[[Batch], Tensor]) -> Tensor:
        """What `read` gives for the batch, [scored, ...]; it runs the model and reads the result.

        Raises what `read` raises; running out of memory only when one row does.
        """
        found = self._run(batch, read)
        self.answered()
        return found

    def _run(self, batch: Batch, read: Callable[[Batch], Tensor]) -> Tensor:
        while True:
            fitting = list(self._fit(batch))
            try:
                if len(fitting) > 1:
                    return torch.cat([self._run(part, read) for part in fitting])
                key = self._key(batch)
                if self.prefix.ahead:
                    return self.prefix.keeping(key, partial(read, batch))
                with self.prefix.replaying(key):
                    return read(batch)
            except (RuntimeError, MemoryError) as error:
                if len(fitting) > 1:
                    raise
                self._lower(batch, error)

    def _lower(self, batch: Batch, error: Exception) -> None:
        """Halve the limit if `error` is a lack of memory that smaller batches may mend."""
        if not is_out_of_memory(error) or not batch.divides:
            raise error
        self.limit_tokens = batch.tokens // 2
        log.warning(
            "out of memory with %d tokens; batches of more than %d tokens will be halved",
            batch.tokens,
            self.limit_tokens,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fit(self, batch: Batch) -> Iterator[Batch]:
        """The batch, or its parts that keep to the limit."""
        if self.limit_tokens is None or batch.tokens <= self.limit_tokens or not batch.divides:
            yield batch
            return
        if id(batch) not in self._halves:
            self.prefix.forget([self._key(batch)])
            self._halves[id(batch)] = batch.halves()
        for half in self._halves[id(batch)]:
            yield from self._fit(half)

    def _key(self, batch: Batch | Prompts) -> str:
        # The batch is held, so that no other one takes its identity.
        if id(batch) not in self._keys:
            self._keys[id(batch)] = (batch, batch.key())
        return self._keys[id(batch)][1]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "out of memory" in text or "ALLOC_FAILED" in text
    )
