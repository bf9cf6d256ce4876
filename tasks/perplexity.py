"""Perplexity of a causal model on running text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.base import Example, Head, Outcome, Reply, Request, TokenNll, TokenNlls
from tasks.datasets import load_rows
from tasks.errors import InputError, nearest
from tasks.identity import identify
from tasks.metrics import PERPLEXITY
from tasks.readers import Row

FIELDS = ("text", "sentence", "question")
WINDOW_TOKENS = 2048
PASSAGE_CHARACTERS = 2000
HEADING = re.compile(r"\s*= (?!=).* =\s*")
"""The line that begins an article of WikiText; its sections have more signs."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A hub data set at a revision, and what it is."""

    about: str
    hub: str
    revision: str


CORPORA = {
    "wikitext2": Corpus(
        "the test articles of WikiText-2",
        "Salesforce/wikitext:wikitext-2-raw-v1:test",
        "b08601e04326c79dfdd32d625aee71d232d685c3",
    ),
    # The Parquet branch: the data set itself is a script, which `datasets` no longer runs.
    "ptb": Corpus(
        "the test sentences of the Penn Treebank",
        "ptb-text-only/ptb_text_only:penn_treebank:test",
        "refs/convert/parquet",
    ),
    # One file of eight: the configuration ``en`` would fetch 300 GB, and ``allenai--c4`` is gone.
    "c4": Corpus(
        "1,100 validation documents of C4",
        "allenai/c4:en/c4-validation.00000-of-00008.json.gz:validation[:1100]",
        "1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
    ),
    "gsm8k": Corpus(
        "the test questions of GSM8K",
        "openai/gsm8k:main:test",
        "e53f048856ff4f594e959d75785d2c2d37b678ee",
    ),
}


class Perplexity:
    """How well a model predicts text: exp of the mean negative log-likelihood per token.

    ``perplexity`` reads your own file. ``perplexity:wikitext2`` is the test split of WikiText-2
    (Merity et al. 2017, 62 articles, licence CC BY-SA 3.0), ``perplexity:ptb`` that of the Penn
    Treebank (Marcus et al. 1993, 3,761 sentences, licence of the LDC), ``perplexity:c4`` the first
    1,100 validation documents of C4 (Raffel et al. 2020, licence ODC-BY), ``perplexity:gsm8k`` the
    1,319 test questions of GSM8K (Cobbe et al. 2021, licence MIT).
    Data: .txt, or a column ``text``, ``sentence`` or ``question``. One example is an article where
    the text begins with a WikiText heading (`` = Title = ``); a passage of whole lines, at least
    2,000 characters where there are as many, in a .txt file or a column of sentences; else a row.
    Causal head: each example is read by itself, after BOS (or EOS), in windows of 2,048 tokens or
    as many as the model reads; a window begins where the one before ended, the last one reaches
    back to be full, and no token is predicted twice. Numbers depend on this and on the tokenizer.
    Scoring: the score is minus the mean negative log-likelihood per token, so that higher is
    better; examples count by their tokens; shown is its perplexity.
    """

    metric = PERPLEXITY
    heads: frozenset[Head] = frozenset({"causal"})

    def __init__(self, corpus: str = "") -> None:
        self.name = f"perplexity:{corpus}" if corpus else "perplexity"
        self._corpus = CORPORA[corpus] if corpus else None
        self.about = f"perplexity on {self._corpus.about if self._corpus else 'your own text'}"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read texts from a file or a hub id; None is the task's corpus, pinned."""
        if source is None:
            if self._corpus is None:
                raise InputError(
                    "task 'perplexity' needs data: give your file, such as text.txt, or use "
                    f"one of {', '.join(f'perplexity:{name}' for name in CORPORA)}"
                )
            source, revision = self._corpus.hub, revision or self._corpus.revision
        rows = load_rows(source, revision)
        field = _field(rows[0])
        lines = Path(source).suffix.lower() == ".txt"
        return identify([Example("", "", text, "") for text in _texts(rows, field, lines)])

    def request(self, example: Example, head: Head) -> Request:
        """Return the text to read."""
        return TokenNll(example.prompt, WINDOW_TOKENS)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply: a mean per token, which counts by its tokens."""
        if not isinstance(reply, TokenNlls):
            raise TypeError(f"{self.name} asks for a loss, not for {type(reply).__name__}")
        mean = -reply.nats / reply.tokens
        return Outcome(
            example.id,
            example.group,
            mean,
            mean,
            None,
            tokens=reply.tokens,
            weight=float(reply.tokens),
        )


def _field(row: Row) -> str:
    for field in FIELDS:
        if field in row:
            return field
    hint = next((n for n in (nearest(name, FIELDS) for name in row) if n), "")
    raise InputError(
        f"{row.where} has the fields {', '.join(row)}; expected one of {', '.join(FIELDS)}{hint}"
    )


def _texts(rows: Sequence[Row], field: str, lines: bool) -> Iterator[str]:
    """The units of text, without blank ones."""
    texts = [_text(row, field) for row in rows]
    first = next((text for text in texts if text.strip()), "")
    if HEADING.fullmatch(first):
        units = _articles(texts)
    elif lines:
        units = passages(texts, "\n", counted=1)
    elif field == "sentence":
        units = passages([text.strip() for text in texts], " ", counted=1)
    else:
        units = iter(texts)
    return (unit.strip() for unit in units if unit.strip())


def _text(row: Row, field: str) -> str:
    """A line as it stands; a blank one is a line too."""
    value = row.get(field)
    return value.rstrip("\n") if isinstance(value, str) else row.text(field)


def _articles(lines: Sequence[str]) -> Iterator[str]:
    article: list[str] = []
    for line in lines:
        if HEADING.fullmatch(line) and article:
            yield "\n".join(article)
            article = []
        article.append(line)
    yield "\n".join(article)


def passages(lines: Iterable[str], between: str, counted: int = 0) -> Iterator[str]:
    """Whole lines together, of at least `PASSAGE_CHARACTERS` where there are as many.

    `counted`: characters that a line counts for beside its own.
    """
    passage: list[str] = []
    length = 0
    for line in lines:
        passage.append(line)
        length += len(line) + counted
        if length >= PASSAGE_CHARACTERS:
            yield between.join(passage)
            passage, length = [], 0
    if passage:
        yield between.join(passage)
