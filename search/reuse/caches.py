"""What a block writes into a key-value cache: read after it ran, put back where it does not.

Of a cache that grows by concatenation, whose layers keep all tokens or the last of a window. Other
kinds (recurrent states, layers that read another's) are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Place = tuple[int, int]
"""Of a layer: the part of the cache (0 self-attention, 1 cross-attention) and its number there."""

State = tuple[Tensor, Tensor, Tensor]
"""Of a layer: keys and values [rows, heads, tokens, width], and the tokens that it has read, a
number on the CPU: more than it keeps where it has a window."""


class UnknownCacheError(TypeError):
    """A cache of a kind that cannot be read off and put back."""


def find_cache(arguments: Iterable[Any]) -> Any:
    """The key-value cache among what a block is called with, or None."""
    from transformers.cache_utils import Cache, EncoderDecoderCache

    kinds = (Cache, EncoderDecoderCache)
    return next((one for one in arguments if isinstance(one, kinds)), None)


def written(cache: Any, known: set[Place]) -> dict[Place, State]:
    """The layers that have been written but are not `known`; nothing is copied.

    Raises UnknownCacheError.
    """
    found: dict[Place, State] = {}
    for part, one in enumerate(_parts(cache)):
        for number, layer in enumerate(one.layers):
            if (part, number) not in known and layer.is_initialized:
                read = getattr(layer, "cumulative_length", layer.keys.shape[-2])
                found[part, number] = (layer.keys, layer.values, torch.tensor(read))
    return found


def put_back(cache: Any, states: Mapping[Place, State]) -> None:
    """Write what `written` read off another cache; the tensors become the cache's own."""
    parts = _parts(cache)
    for (part, number), (keys, values, read) in states.items():
        layers = parts[part].layers
        while len(layers) <= number:  # made by the first token where no configuration says how many
            layers.append(parts[part].layer_class_to_replicate())
        layer = layers[number]
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = int(read)
        if part:
            cache.is_updated[number] = True


def tensors_of(cache: Any) -> tuple[Tensor, ...]:
    """All that a cache of a known kind holds; nothing of another kind."""
    try:
        states = written(cache, set())
    except UnknownCacheError:
        return ()
    return tuple(tensor for place in sorted(states) for tensor in states[place])


def _parts(cache: Any) -> list[Any]:
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    pair = type(cache) is EncoderDecoderCache
    parts = [cache.self_attention_cache, cache.cross_attention_cache] if pair else [cache]
    for unknown in _unknown(parts, DynamicCache):
        raise UnknownCacheError(f"its key-value cache holds a {unknown}")
    return parts


def _unknown(parts: Iterable[Any], kind: type[Any]) -> Iterator[str]:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    for part in parts:
        if type(part) is kind and not part.offloading:
            layers = part.layers
            known = (DynamicLayer, DynamicSlidingWindowLayer)
            yield from (type(layer).__name__ for layer in layers if type(layer) not in known)
        else:
            yield type(part).__name__
