"""Whether a model knows every token that its tokenizer would give it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.model import ModelSource
from tasks.base import Example
from tasks.errors import InputError
from tasks.foreign import reading

_MOST_TEXTS = 2000
"""Texts that are encoded at once."""


def check_vocabulary(source: ModelSource, skeleton: Any, examples: Sequence[Example]) -> None:
    """Raise InputError if a question has a token that the model's embedding lacks.

    `skeleton`: the model without its weights. A tokenizer may hold tokens that no question has;
    only where it holds more than the embedding has rows are the questions encoded here.
    """
    embedding = skeleton.get_input_embeddings()
    rows = getattr(getattr(embedding, "weight", None), "shape", (0,))[0]
    tokenizer = source.tokenizer()
    with reading(f"the tokenizer in {source.folder}", "fetch its files again"):
        vocabulary: dict[str, int] = tokenizer.get_vocab()
    beyond = {index: token for token, index in vocabulary.items() if index >= rows}
    if not rows or not beyond:
        return
    for ids in _encoded(source, tokenizer, examples):
        for index in ids:
            if index >= rows:
                raise InputError(
                    f"the tokenizer in {source.folder} has the token {beyond.get(index, '?')!r} "
                    f"({index}), but the model's embedding has only {rows} rows; use the "
                    "tokenizer that the model was trained with, or one without added tokens"
                )


def _encoded(
    source: ModelSource, tokenizer: Any, examples: Sequence[Example]
) -> Iterable[Sequence[int]]:
    texts = list(dict.fromkeys(text for example in examples for text in _texts(example)))
    pad = tokenizer.pad_token_id
    if source.head == "classifier" and pad is not None:  # the one head that pads with it
        yield [pad]
    if source.chat_template and getattr(tokenizer, "chat_template", None):
        message = [{"role": "user", "content": "a"}]
        texts.append(tokenizer.apply_chat_template(message, tokenize=False))
    for start in range(0, len(texts), _MOST_TEXTS):
        yield from tokenizer(texts[start : start + _MOST_TEXTS], verbose=False)["input_ids"]


def _texts(example: Example) -> Iterable[str]:
    yield from (example.prompt, example.answer, f"{example.prompt} {example.answer}")
    yield from (f"{example.prompt} {choice}" for choice in example.choices)
    if example.text_pair:
        yield example.text_pair
