"""Texts to tokens: where a prompt ends and its answer begins, for any kind of tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.errors import InputError

ANCHORS = ("\n", "a", ".")
"""Texts put before a continuation to see its tokens in the middle of a line."""

Ids = tuple[int, ...]


class Encoder:
    """Encodes prompts and continuations with a Hugging Face `tokenizer`, slow or fast.

    `prefix`, `suffix`: the tokens that the tokenizer puts around a text (BOS, CLS, SEP, EOS).
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.prefix, self.suffix = self._specials()

    def _specials(self) -> tuple[Ids, Ids]:
        for probe in ("a", "A", "1", ".", "the"):
            inner = self.plain([probe])[0]
            whole = tuple(self.tokenizer(probe)["input_ids"])
            starts = [
                start
                for start in range(len(whole) - len(inner) + 1)
                if inner and whole[start : start + len(inner)] == inner
            ]
            if starts:
                return whole[: starts[0]], whole[starts[0] + len(inner) :]
        return (), ()

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Tokens of each text without any special tokens around it; equal texts once."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return []
        encoded = self.tokenizer(unique, add_special_tokens=False, verbose=False)["input_ids"]
        known = {text: tuple(ids) for text, ids in zip(unique, encoded, strict=True)}
        return [known[text] for text in texts]

    def open(self, prompt: Ids) -> Ids:
        """Put the prefix before the tokens of a prompt, unless the prompt spells it out itself."""
        if self.prefix and prompt[: len(self.prefix)] == self.prefix:
            return prompt
        return self.prefix + prompt

    def split(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
        """Tokens of each prompt and of the continuation that follows it, without special tokens.

        The whole text is tokenised and has to begin with the prompt's own tokens; the rest is the
        continuation. Where it does not, spaces at the end of the prompt go to the continuation
        (BPE and SentencePiece join a space to the next word). Where it still does not, because a
        token spans the seam, prompt and continuation are tokenised apart, as they would meet in
        generation. Raises InputError when a continuation has no tokens.
        """
        found: list[tuple[Ids, Ids] | None] = self._seams(pairs)
        apart = [index for index, pair in enumerate(found) if pair is None]
        moved = [_move_spaces(*pairs[index]) for index in apart]
        for index, pair, seam in zip(apart, moved, self._seams(moved), strict=True):
            found[index] = seam or (self.plain([pair[0]])[0], self._alone(pair[1]))
        whole: list[tuple[Ids, Ids]] = []
        for (_, text), pair_ids in zip(pairs, found, strict=True):
            if pair_ids is None or not pair_ids[1]:
                raise InputError(
                    f"answer {text!r} has no tokens in the model's vocabulary; "
                    "give an answer that the tokenizer can represent"
                )
            whole.append(pair_ids)
        return whole

    def _seams(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids] | None]:
        prompts = self.plain([prompt for prompt, _ in pairs])
        wholes = self.plain([prompt + text for prompt, text in pairs])
        return [
            (prompt, whole[len(prompt) :])
            if len(whole) > len(prompt) and whole[: len(prompt)] == prompt
            else None
            for prompt, whole in zip(prompts, wholes, strict=True)
        ]

    def _alone(self, text: str) -> Ids:
        """Tokens of a continuation by itself, without the space that SentencePiece would add."""
        if not text[:1].isspace():
            for anchor in ANCHORS:
                (before, both) = self.plain([anchor, anchor + text])
                if before and len(both) > len(before) and both[: len(before)] == before:
                    return both[len(before) :]
        return self.plain([text])[0]


def _move_spaces(prompt: str, text: str) -> tuple[str, str]:
    # Spaces only: a line break is a token of its own, and part of the question.
    bare = prompt.rstrip(" ")
    return bare, prompt[len(bare) :] + text


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Longest sequence that `model` reads, in tokens, or None where it has no limit.

    RoBERTa and its kin count positions from behind their padding index, which costs two of 514.
    """
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            return limit - _first_position(model)
    limit = getattr(tokenizer, "model_max_length", None)
    return limit if isinstance(limit, int) and limit < 10**9 else None


def _first_position(model: Any) -> int:
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return int(module.padding_idx) + 1
    return 0
