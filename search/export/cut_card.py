"""The model card of a cut that was named, not searched: what was cut; more is not known."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.export.card import (
    LIMITS,
    Contents,
    bullets,
    cuts_and_use,
    metadata,
    origin,
    short_name,
    verified_text,
)
from search.export.same_output import SameOutput
from search.published import model_name
from search.study.identity import own_versions

_UNKNOWN = (
    "No score of this model was measured: what it gains or loses, on any task, is not known.",
)


def cut_card(
    path: str,
    composition: Composition,
    source: str,
    contents: Contents,
    verdict: SameOutput | None,
) -> str:
    """README.md of a cut of the model at `path`, with the hub's metadata block.

    `source`: who named the interventions, in words.
    """
    name = model_name(path)
    base = contents.digests.get("base tensors", "")[:16]
    return f"""---
{metadata(path, contents)}
---

# {short_name(name)} after LASER ({contents.format})

**Nothing was searched and no score was measured**: the interventions were {source}.

Weight matrices of `{name}`, whose tensors have the digest `{base}`, cut as the table says
(layer-selective rank reduction: Sharma, Ash, Misra: The Truth is in There, ICLR 2024); nothing was
trained.

{cuts_and_use(composition, contents)}

## Check

{verified_text(verdict)}

## Limits

{bullets([*contents.notes, *_UNKNOWN, LIMITS[1]])}

{origin(contents, own_versions())}"""
