"""The texts that a model is calibrated on: validation's own prompts, or a file of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from tasks.base import (
    Choose,
    Classify,
    Complete,
    Example,
    FillAtOnce,
    Generate,
    Head,
    Request,
    Task,
    TokenNll,
    Weigh,
)
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.perplexity import passages
from tasks.readers import Row

FIELDS = ("text", "prompt", "sentence", "question")
"""Columns that a passage is read from, the first that there is."""

SHINGLE = 24
"""Characters of a held-out question that, where a text has them and all the rest of it, give it
away; shorter questions are compared whole."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be read: with what follows it, or its second sentence, where there is one.

    `message`: the text is a prompt, which a chat template may wrap.
    """

    text: str
    answer: str = ""
    pair: str | None = None
    message: bool = False


@dataclass(frozen=True)
class Texts:
    """What a model is calibrated on: passages in the order in which they are read, and how far.

    Passages are read until there are `tokens` tokens. `said`: where they came from, for people.
    """

    passages: tuple[Passage, ...]
    tokens: int
    said: str

    @property
    def digest(self) -> str:
        """SHA-256 of passages, order and tokens, in hexadecimal."""
        digest = hashlib.sha256(f"{self.tokens}\0".encode())
        for passage in self.passages:
            digest.update(json.dumps(astuple(passage), ensure_ascii=False).encode() + b"\0")
        return digest.hexdigest()


def texts_of_validation(
    task: Task,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    head: Head,
    tokens: int,
    seed: int,
) -> Texts:
    """The prompts of validation, each with its right answer, in a seeded order.

    Raises InputError if a group of `held_out` is among them.
    """
    groups = {example.group for example in held_out}
    if both := next((x for x in examples if x.group in groups), None):
        raise InputError(
            f"validation and test share the group {both.group!r}, so a calibration on validation "
            "would read questions of test; use split.protocol groups, or give calibration.data"
        )
    found = [_of_request(task.request(x, head), x) for x in examples]
    return _ordered(found, tokens, seed, "the prompts of validation")


def texts_of_data(data: str, held_out: Sequence[Example], tokens: int, seed: int) -> Texts:
    """The texts of a file or hub data set, less the questions of `held_out`, in a seeded order.

    A row is left out if its `group` is that of a held-out question, or its text has one of them in
    it, or is in one. Raises InputError if nothing is left.
    """
    rows = load_rows(data)
    field = next((name for name in FIELDS if name in rows[0]), None)
    if field is None:
        raise InputError(
            f"{rows[0].where} has the fields {', '.join(rows[0])}; calibration.data needs one of "
            f"{', '.join(FIELDS)}"
        )
    apart = HeldOut(held_out)
    groups = {example.group for example in held_out}
    if data.lower().endswith(".txt"):
        found = [Passage(text) for text in passages((row.text(field) for row in rows), "\n")]
        whole = len(found)
    else:
        others = [row for row in rows if not (row.has("group") and row.name("group") in groups)]
        found, whole = [_of_row(row, field) for row in others], len(rows)
    kept = [one for one in found if not apart.holds(one.text)]
    if not kept:
        raise InputError(f"calibration.data {data} contains only test questions; give other texts")
    gone = whole - len(kept)
    said = f"{data}, without {gone} texts that contain held-out questions" if gone else data
    return _ordered(kept, tokens, seed, said)


class HeldOut:
    """Finds questions that must not be read within texts; spaces and case do not count."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._starts: dict[str, list[str]] = {}
        self._short: set[str] = set()
        whole = []
        for text in {_plain(example.prompt) for example in examples}:
            if len(text) < SHINGLE:
                self._short.add(text)
            else:
                self._starts.setdefault(text[:SHINGLE], []).append(text)
            whole.append(text)
        self._all = "\0".join(whole)

    def holds(self, text: str) -> bool:
        """Whether `text` has a held-out question in it, or is one, or a part of one."""
        own = _plain(text)
        if own in self._short or (len(own) >= SHINGLE and own in self._all):
            return True
        places = range(len(own) - SHINGLE + 1)
        return any(
            own.startswith(question, at)
            for at in places
            for question in self._starts.get(own[at : at + SHINGLE], ())
        )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _ordered(found: Sequence[Passage], tokens: int, seed: int, said: str) -> Texts:
    """Equal passages once, in an order that depends on them and the seed alone."""
    key = hashlib.blake2b(f"calibration {seed}".encode(), digest_size=16).digest()

    def place(one: Passage) -> bytes:
        text = json.dumps(astuple(one)).encode()
        return hashlib.blake2b(text, key=key, digest_size=16).digest()

    return Texts(tuple(sorted(set(found), key=place)), tokens, said)


def _of_request(request: Request, example: Example) -> Passage:
    """What the model reads of a question whose right answer it is told."""
    place = example.label or 0
    match request:
        case Classify(text, pair):
            found = Passage(text, pair=pair)
        case Complete(prompt, answer) | Generate(prompt, _, answer):
            found = Passage(prompt, answer, message=True)
        case Choose(prompt, choices) | FillAtOnce(prompt, choices):
            found = Passage(prompt, choices[place], message=True)
        case Weigh(pairs):
            found = Passage(*pairs[min(place, len(pairs) - 1)], message=True)
        case TokenNll(text):
            found = Passage(text)
    return found


def _of_row(row: Row, field: str) -> Passage:
    pair = row.text("text_pair") if row.has("text_pair") else None
    text = row.text(field)
    if field in ("prompt", "question") and row.has("answer"):
        answer = row.text("answer")
        return Passage(text, answer if text[-1:].isspace() else f" {answer}", message=True)
    return Passage(text, pair=pair, message=field == "prompt")
