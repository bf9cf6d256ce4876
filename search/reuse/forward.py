"""Forward passes over batches: from the nearest boundary, in halves where memory is short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

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


class ForwardPasses:
    """Runs batches of a model, whole or from a boundary of `prefix`.

    A batch that does not fit into memory is halved until it does, and from then on every batch of
    more than `limit_tokens` is, so that a pass fails once and not once per trial. Halves give the
    results of the whole but for the rounding of another batch size.
    """

    def __init__(self, prefix: PrefixReuse | None = None, last: LastBlock | None = None) -> None:
        """Without a `prefix` every pass begins at the first block, without `last` it ends whole."""
        self.prefix = prefix or PrefixReuse(Blocks((), (), {}), ())
        self.last = last
        self.limit_tokens: int | None = None
        self.answered: Callable[[], None] = lambda: None
        """Called after each batch of questions; whoever asks them in other ways calls it too."""
        self._keys: dict[int, tuple[Batch, str]] = {}
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

    def recorded(self, batches: Sequence[Batch]) -> bool:
        """Whether `record` has nothing to do."""
        return all(self.prefix.known(self._key(b)) for batch in batches for b in self._fit(batch))

    def expect(self, batches: Iterable[Batch]) -> None:
        """Say what will be recorded in all, so that boundaries are chosen for the whole of it."""
        self.prefix.expected_tokens = sum(batch.tokens for batch in batches)

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

    def _key(self, batch: Batch) -> str:
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
