"""The model card of a cut that was named, not searched: what was cut; more is not known."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from search.cuts.composition import Composition
from search.export.card import LIMITS, PIPELINES, Contents, bullets, short_name, verified_text
from search.export.same_output import SameOutput
from search.published import hub_name, model_name
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
    metadata = ModelCardData(
        library_name=contents.library,
        tags=["laser", "low-rank", "laser-search", contents.format],
        pipeline_tag=PIPELINES.get(contents.head),
        base_model=hub_name(path),
        model_name=f"{short_name(name)}-laser",
    ).to_yaml()
    rows = "\n".join(
        f"| {i.matrix} | {i.kind} | {i.rule.name} {i.rule.value:g} | "
        f"{contents.rows.get(str(i.matrix), '')} |"
        for i in composition.interventions
    )
    before, after = contents.parameters
    digests = "\n".join(f"| {name} | `{value}` |" for name, value in contents.digests.items())
    versions = ", ".join(f"{name} {value}" for name, value in own_versions().items())
    base = contents.digests.get("base tensors", "")[:16]
    return f"""---
{metadata}
---

# {short_name(name)} after LASER ({contents.format})

**Nothing was searched and no score was measured**: the interventions were {source}.

Weight matrices of `{name}`, whose tensors have the digest `{base}`, cut as the table says
(layer-selective rank reduction: Sharma, Ash, Misra: The Truth is in There, ICLR 2024); nothing was
trained.

| matrix | kind | kept | in this export |
|---|---|---|---|
{rows}

{before:,} parameters in the base, {after:,} here.

## Use

```python
{contents.load}
```

## Check

{verified_text(verdict)}

## Limits

{bullets([*contents.notes, *_UNKNOWN, LIMITS[1]])}

## Origin

| what | digest |
|---|---|
{digests}

Made by `{contents.command}` with {versions}.
"""
