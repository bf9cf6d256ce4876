"""How a prompt and its answer meet: the one place that decides about the space between them."""

from __future__ import annotations

from tasks.base import MASK, Choose, Complete, Example, Head


def continuation(prompt: str, answer: str) -> str:
    """Return `answer` as it follows `prompt`: after one space, unless one of them has it already.

    An empty prompt takes the answer bare. Predictors split the result from the prompt by tokens,
    so the same text serves byte-level BPE, SentencePiece and WordPiece vocabularies.
    """
    if not prompt or prompt[-1].isspace() or not answer or answer[0].isspace():
        return answer
    return " " + answer


def with_mask(prompt: str) -> str:
    """Return `prompt` for a masked head: with its own mask, else one at the end and a full stop.

    ``[MASK]`` and ``<mask>`` are both understood. The full stop matters: without it BERT and
    RoBERTa fill the last position with punctuation.
    """
    text = prompt.replace("<mask>", MASK)
    return text if MASK in text else f"{text.rstrip()} {MASK}.".lstrip()


def fill(prompt: str, answer: str) -> str:
    """Return `answer` as it fills the mask of `prompt`: with the space before the mask, if any.

    The space belongs to the word in byte-level BPE and SentencePiece vocabularies, whose mask
    tokens swallow it.
    """
    before = prompt.partition(MASK)[0]
    return " " + answer.strip() if before and before[-1].isspace() else answer


def sentence(text: str) -> str:
    """Return `text` with a full stop at its end, unless it ends a sentence already."""
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else f"{text}."


def ask(example: Example, head: Head, prompt: str | None = None) -> Choose | Complete:
    """Return what a causal or masked head is asked: to choose where there are choices.

    `prompt`: the whole of it where it is more than the example's own.
    """
    prompt, follow = example.prompt if prompt is None else prompt, continuation
    if head == "masked":
        prompt, follow = with_mask(prompt), fill
    if example.choices:
        return Choose(prompt, tuple(follow(prompt, choice) for choice in example.choices))
    return Complete(prompt, follow(prompt, example.answer))
