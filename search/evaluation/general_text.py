"""The general text on which a winner's collateral is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from search.model import ModelSource
from search.sections import GuardConfig
from search.study.collateral import GeneralText
from tasks.base import Example
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT
from tasks.identity import identify
from tasks.perplexity import CORPORA, Perplexity

PROMPTS = "the prompts of the test questions"
MIN_TOKENS = 2
"""Shorter texts have no token that another one predicts."""
PASSAGE_CHARACTERS = 512
"""Some 120 tokens: many short passages vary less than a few long texts of as many tokens."""


def read_general_text(
    config: GuardConfig | None,
    source: ModelSource,
    test: Sequence[Example],
    validation: Sequence[Example] = (),
) -> GeneralText | None:
    """The texts that `guard` of study.yaml names, as many as its `tokens` allow.

    Without `data` they are the prompts of `test`, each once; the sample for trials, where there is
    a limit, is of `validation` then. None where it is off, where the head gives text no likelihood,
    or where all prompts are too short. Raises InputError for data that cannot be read, or for a
    head that cannot read the data that was named, or be held to the limit.
    """
    if config is None:
        return None
    if source.head not in Perplexity.heads:
        _refuse(config, source.head)
        return None
    if config.data is None:
        found, name = _prompts(test), PROMPTS
    else:
        corpus = config.data if config.data in CORPORA else ""
        found = Perplexity(corpus).load(None if corpus else config.data)
        name = f"perplexity:{corpus}" if corpus else Path(config.data).name
    chosen = tuple(_within(found, config.tokens, source))
    if not chosen and config.data is not None:
        raise InputError(f"guard: {name} contains no text of at least {MIN_TOKENS} tokens")
    sample: tuple[Example, ...] = ()
    if config.worse_by is not None:
        own = _prompts(validation) if config.data is None else _passages(found, chosen)
        sample = tuple(_within(own, config.sample_tokens, source))
        if not sample or not chosen:
            raise InputError(
                f"guard.worse_by is {config.worse_by:g}, but no prompt of validation, or none of "
                f"test, has {MIN_TOKENS} tokens; name a text with guard.data"
            )
    return GeneralText(name, chosen, sample) if chosen else None


def _refuse(config: GuardConfig, head: str) -> None:
    """Raise InputError if a model without a perplexity is asked for one."""
    for key, value in (("data", config.data), ("worse_by", config.worse_by)):
        if value is not None:
            raise InputError(
                f"guard.{key} is {value!r}, but a {head} head gives text no "
                "perplexity; remove guard, or use a causal model"
            )


def _prompts(examples: Sequence[Example]) -> list[Example]:
    """The prompts of questions as texts, each once."""
    texts = {example.prompt: example.group for example in reversed(examples)}
    return identify([Example("", group, text, "") for text, group in texts.items()])


def _passages(texts: Sequence[Example], scored: Sequence[Example]) -> list[Example]:
    """Short passages of `texts`; of those that the verdict has `scored` if there are no others.

    A passage is whole words as they stand; the rest of a text, if it is short, is left out.
    """
    known = {example.id for example in scored}
    others = [example for example in texts if example.id not in known] or texts
    found = []
    for example in others:
        text, start = example.prompt, 0
        while start == 0 or len(text) - start >= PASSAGE_CHARACTERS // 2:
            stop = start + PASSAGE_CHARACTERS
            if stop < len(text):
                ends = (text.rfind(blank, start + 1, stop) for blank in (" ", "\n"))
                stop = max((end for end in ends if end > 0), default=stop)
            if passage := text[start:stop].strip():
                found.append(Example("", example.group, passage, ""))
            start = stop
    return identify(found)


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
        yield replace(example, task=GENERAL_TEXT)
