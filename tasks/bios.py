"""Bias in Bios: the gender or the profession of the person whom a short biography describes."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.answers import score_chosen
from tasks.base import Chosen, Column, Example, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError, nearest
from tasks.identity import content_hash, identify
from tasks.prompts import ask, sentence
from tasks.readers import Row

GENDERS = ("male", "female")
PROFESSIONS = (
    *("accountant", "architect", "attorney", "chiropractor", "comedian", "composer", "dentist"),
    *("dietitian", "dj", "filmmaker", "interior designer", "journalist", "model", "nurse"),
    *("painter", "paralegal", "pastor", "personal trainer", "photographer", "physician", "poet"),
    *("professor", "psychologist", "rapper", "software engineer", "surgeon", "teacher"),
    "yoga teacher",
)
"""In the order of the data set's numbers."""
CHOSEN = ("journalist", "poet", "composer", "model", "teacher", "architect", "painter", "professor")
"""The professions that LASER asks about: one token each in its models' vocabularies."""
HUB = "LabHC/bias_in_bios::dev"


class BiosGender:
    """Biographies without names, each of a man or a woman.

    Source: De-Arteaga et al., FAT* 2019; by default the split dev of the hub copy, 39,642
    biographies, at the hub's newest revision unless one is given. Licence: MIT. Data:
    ``hard_text``, ``gender`` (0 male, 1 female, or the words), optional ``profession``.
    Causal, masked and seq2seq heads: log-likelihood of " male" against " female" after the
    biography and "Is the person in this text a male or female? The gender of this person is"; for
    masked heads "This person is", as in LASER's code. Scoring: 1 when the right word is the
    likelier, and its log-probability among the two. Equal biographies are a group.
    """

    name = "bios-gender"
    about = "biographies: is the person male or female"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked", "seq2seq"})

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read biographies from a file or a hub id; None is the hub's split dev."""
        drafts = []
        for row in load_rows(source or HUB, revision):
            label = _place(row, "gender", GENDERS)
            columns: dict[str, Column] = {}
            if "profession" in row:
                columns["profession"] = PROFESSIONS[_place(row, "profession", PROFESSIONS)]
            drafts.append(_draft(row, GENDERS, label, columns))
        return identify(drafts)

    def request(self, example: Example, head: Head) -> Request:
        """Return the biography, the question and the two words to choose from."""
        who = "This person is" if head == "masked" else "The gender of this person is"
        question = f"Is the person in this text a male or female? {who}"
        return ask(example, head, f"{_consider(example)} {question}")

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        return _score(self.name, example, reply)


class BiosProfession:
    """Biographies without names, each of a person with one of eight professions.

    Source: De-Arteaga et al., FAT* 2019; by default the split dev of the hub copy, 19,223
    biographies of the eight professions that LASER asks about, at the hub's newest revision unless
    one is given; other professions are left out. Licence: MIT. Data: ``hard_text``, ``profession``
    (0 to 27, or the word), optional ``gender``.
    Causal, masked and seq2seq heads: log-likelihood of the eight words after the biography and
    "What is the profession of the person in this text? The profession of this person is".
    Scoring: 1 when the right word is the likeliest, and its log-probability among the eight.
    Equal biographies are a group.
    """

    name = "bios-profession"
    about = "biographies: which of eight professions"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked", "seq2seq"})

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read biographies from a file or a hub id; None is the hub's split dev."""
        drafts = []
        for row in load_rows(source or HUB, revision):
            profession = PROFESSIONS[_place(row, "profession", PROFESSIONS)]
            if profession not in CHOSEN:
                continue
            columns: dict[str, Column] = {}
            if "gender" in row:
                columns["gender"] = GENDERS[_place(row, "gender", GENDERS)]
            drafts.append(_draft(row, CHOSEN, CHOSEN.index(profession), columns))
        if not drafts:
            raise InputError(f"{source} has no biography of a {', '.join(CHOSEN)}")
        return identify(drafts)

    def request(self, example: Example, head: Head) -> Request:
        """Return the biography, the question and the eight words to choose from."""
        question = (
            "What is the profession of the person in this text? The profession of this person is"
        )
        return ask(example, head, f"{_consider(example)} {question}")

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        return _score(self.name, example, reply)


def _draft(row: Row, words: Sequence[str], label: int, columns: dict[str, Column]) -> Example:
    text = row.text("hard_text").strip()
    return Example("", content_hash(text), text, words[label], tuple(words), label, columns)


def _consider(example: Example) -> str:
    return f"Consider the following text: {sentence(example.prompt)}"


def _place(row: Row, field: str, names: Sequence[str]) -> int:
    """Which of `names` a field says, by name or number."""
    value = row.name(field).casefold().replace("_", " ")
    if value.isdecimal() and int(value) < len(names):
        return int(value)
    if value not in names:
        raise InputError(
            f"{row.where}: {field} is {value!r}, expected a number below {len(names)} or a name"
            + nearest(value, names)
        )
    return names.index(value)


def _score(name: str, example: Example, reply: Reply) -> Outcome:
    if not isinstance(reply, Chosen):
        raise TypeError(f"{name} asks for a choice, not for {type(reply).__name__}")
    return score_chosen(example, reply)
