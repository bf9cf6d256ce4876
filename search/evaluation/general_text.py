"""The general text on which a winner's collateral is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from search.config import GuardConfig
from search.model import ModelSource
from search.study.collateral import GeneralText
from tasks.base import Example
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT
from tasks.identity import identify
from tasks.perplexity import CORPORA, Perplexity

PROMPTS = "the prompts of the test questions"
MIN_TOKENS = 2
"""Shorter texts have no token that another one predicts."""


def read_general_text(
    config: GuardConfig | None, source: ModelSource, test: Sequence[Example]
) -> GeneralText | None:
    """The texts that `guard` of study.yaml names, as many as its `tokens` allow.

    Without `data` they are the prompts of `test`, each once. None where it is off, where the head
    gives text no likelihood, or where all prompts are too short. Raises InputError for data that
    cannot be read, or for a head that cannot read the data that was named.
    """
    if config is None:
        return None
    if source.head not in Perplexity.heads:
        if config.data is not None:
            raise InputError(
                f"guard.data is {config.data!r}, but a {source.head} head gives text no "
                "perplexity; remove guard, or use a causal model"
            )
        return None
    if config.data is None:
        texts = {example.prompt: example.group for example in reversed(test)}
        found = identify([Example("", group, text, "") for text, group in texts.items()])
        name = PROMPTS
    else:
        corpus = config.data if config.data in CORPORA else ""
        found = Perplexity(corpus).load(None if corpus else config.data)
        name = f"perplexity:{corpus}" if corpus else Path(config.data).name
    chosen = tuple(replace(x, task=GENERAL_TEXT) for x in _within(found, config.tokens, source))
    if not chosen and config.data is None:
        return None
    if not chosen:
        raise InputError(f"guard: {name} contains no text of at least {MIN_TOKENS} tokens")
    return GeneralText(name, chosen)


def _within(examples: Sequence[Example], budget: int, source: ModelSource) -> Iterable[Example]:
    """Examples in an order of their own, which does not depend on the file's, up to the budget."""
    tokenizer = source.tokenizer()
    order = sorted(examples, key=lambda x: hashlib.sha256(x.id.encode()).digest())
    taken = 0
    for example in order:
        count = len(tokenizer(example.prompt, verbose=False)["input_ids"])
        if count < MIN_TOKENS:
            continue
        if taken and taken + count > budget:
            break
        taken += count
        yield example
