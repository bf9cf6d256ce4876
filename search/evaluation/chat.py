"""Prompts as a user's message in the tokenizer's own chat template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks.base import Choose, Complete, Generate, Request, Weigh
from tasks.errors import InputError
from tasks.foreign import reading


class ChatTemplate:
    """The chat template of `tokenizer`. Raises InputError where it has none.

    The template spells out its special tokens, BOS included; the predictor adds no second one. A
    template ends in its opening of the assistant's message, after which an answer begins without a
    space.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "chat_template is on, but the model's tokenizer has no chat template; "
                "leave it out or use an instruction-tuned model"
            )
        self._tokenizer = tokenizer

    def wrap(self, request: Request) -> Request:
        """The same request with its prompt as a message; a whole text (TokenNll) stays."""
        match request:
            case Choose(prompt, choices):
                return Choose(self._message(prompt), tuple(map(_bare, choices)))
            case Complete(prompt, answer):
                return Complete(self._message(prompt), _bare(answer))
            case Weigh(pairs):
                return Weigh(tuple((self._message(p), _bare(answer)) for p, answer in pairs))
            case Generate(prompt, _, answer):
                return replace(request, prompt=self._message(prompt), answer=_bare(answer))
        return request

    def _message(self, prompt: str) -> str:
        with reading("the tokenizer's chat template", "fix it, or remove chat_template"):
            text: str = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        return text


def _bare(answer: str) -> str:
    return answer.removeprefix(" ")
