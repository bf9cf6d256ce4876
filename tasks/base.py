"""What a model is asked and what it answers: the nouns that tasks and predictors share.

A task turns rows of data into examples, an example into a request for a given kind of head, and a
reply into an outcome. A predictor turns requests into replies. Requests and replies are plain data,
so tokenising happens once per study and a trial only runs the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Head = Literal["causal", "masked", "classifier", "seq2seq"]
HeadChoice = Literal["auto", Head]
"""What a model answers with: the next token, a masked token, a class, or a text for a text."""

MASK = "[MASK]"
"""Where a masked head fills in, in every prompt; a predictor writes its tokenizer's own mask."""

Column = str | int | float | bool
"""A value of a data column kept with an example, for breaking results down."""


@dataclass(frozen=True, slots=True)
class Classify:
    """Ask a classification head for its label. `text_pair` is the second sentence, if any."""

    text: str
    text_pair: str | None = None


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask which of `choices` continues `prompt` best (or fills its `MASK`).

    Each choice follows the prompt as it stands: it carries its own leading space (see
    `tasks.prompts`). `cut`: a part of the prompt, and how many of its last tokens are read; a
    masked head alone heeds it.
    """

    prompt: str
    choices: tuple[str, ...]
    cut: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class FillAtOnce:
    """Ask a masked head for answers whose tokens are all masked at once, as LASER's code does.

    Each of `choices` follows the prompt, with its own leading space; the text is read without
    special tokens, and all tokens of the choice are masked in one pass. `masks`: how many are put
    behind the prompt, with special tokens, to see what the model fills them with; the reply is
    then a Generated with that text and the one choice as its answer, else a Chosen.
    """

    prompt: str
    choices: tuple[str, ...]
    masks: int = 0


@dataclass(frozen=True, slots=True)
class Complete:
    """Ask for the tokens after `prompt` (or at its `MASK`) and compare them with `answer`.

    `answer` follows the prompt as it stands: it carries its own leading space (see
    `tasks.prompts`).
    """

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Weigh:
    """Ask how likely each continuation is after a prompt of its own: `pairs` of the two.

    For questions whose choices stand before a common ending, or that compare a choice with itself
    after another prompt. A continuation carries its own leading space.
    """

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for the text that greedy decoding puts after `prompt`.

    At most `max_new_tokens` tokens; the text ends before the model's end token and before the first
    of the `stop` texts. `answer`, if any, is scored as a Complete's is: what follows the prompt as
    it stands. `enough`: decoding may end as soon as one of these texts is decided to stand in the
    generated text (see `tasks.matching.is_decided`), for tasks that ask no more than that. `whole`:
    the reply's text is the prompt and what follows it, decoded together (causal heads only).
    """

    prompt: str
    max_new_tokens: int
    answer: str = ""
    stop: tuple[str, ...] = ()
    enough: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class TokenNll:
    """Ask how unlikely every token of `text` is, each given the tokens before it.

    A text of more than `window_tokens` is read in windows of that many: the first predicts all its
    tokens, every further one the next `stride_tokens`, and reads what stands before them. None:
    windows as long as the model reads; a stride as long as the window.
    """

    text: str
    window_tokens: int | None = None
    stride_tokens: int | None = None


Request = Classify | Choose | Complete | FillAtOnce | Weigh | Generate | TokenNll


@dataclass(frozen=True, slots=True)
class Classified:
    """`log_probabilities` [labels], natural logarithm, sums to one after exp.

    `labels`: the model's own names of its labels, in the same order.
    """

    log_probabilities: tuple[float, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Log-likelihood [choices] of each choice after the prompt, in nats, summed over its tokens.

    `flat`: at every token of every choice all tokens of the vocabulary were equally likely, so the
    model says nothing, and a shorter choice is likelier by its length alone.
    """

    log_likelihoods: tuple[float, ...]
    lengths_tokens: tuple[int, ...]
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """How the model continues a prompt.

    `log_likelihood`: of the answer in nats, summed over its tokens, each given the earlier ones.
    `greedy`: how often greedy decoding says the answer if it draws among tokens that tie: 1 where
    every token is the model's only first choice, the product of 1/k where k tie, else 0.
    `rank`: place of the answer's first token in the vocabulary, 0 is best, the first place of
    `rank_tied` tokens that tie there.
    `text`: the model's first choice at each of the answer's positions, decoded; the lower token of
    those that tie. `length_tokens`: of the answer. `tied`: the most tokens that tie at the top at
    one of its positions.
    """

    log_likelihood: float
    greedy: float
    rank: int
    text: str
    length_tokens: int = 1
    rank_tied: int = 1
    tied: int = 1


@dataclass(frozen=True, slots=True)
class Weighed:
    """Per pair the summed log-likelihood in nats, how often greedy decoding says it, its length.

    `greedy` is as Completed has it, `flat` as Chosen has it. `tied`: per pair, the most tokens that
    tie at the top at one of its positions.
    """

    log_likelihoods: tuple[float, ...]
    greedy: tuple[float, ...]
    lengths_tokens: tuple[int, ...]
    flat: bool = False
    tied: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What greedy decoding said: the generated part alone, without special tokens.

    `length_tokens`: tokens generated, the end token included. `log_likelihood`, `answer_tokens`: of
    the request's answer in nats, summed over its tokens; 0 of 0 tokens where none was given.
    `tied`: the most tokens that tied at the top at one step. `texts`: where some did, what each way
    of breaking the ties says, with its share; `text` is that of the lower tokens. Shares that are
    missing from 1 belong to texts that were not followed and earn nothing.
    """

    text: str
    length_tokens: int
    log_likelihood: float = 0.0
    answer_tokens: int = 0
    tied: int = 1
    texts: tuple[tuple[str, float], ...] = ()

    def mean(self, value: Callable[[str], float]) -> float:
        """`value` of a text, averaged over how ties may be broken."""
        if not self.texts:
            return value(self.text)
        return math.fsum(share * value(text) for text, share in self.texts)


@dataclass(frozen=True, slots=True)
class TokenNlls:
    """Negative log-likelihood of a text in nats, summed over its tokens, and their number."""

    nats: float
    tokens: int


Reply = Classified | Chosen | Completed | Weighed | Generated | TokenNlls


@dataclass(frozen=True, slots=True)
class Example:
    """One question. `id` is unique in its task and does not depend on the order of the file.

    `group`: examples of one group (paraphrases of a fact, answers to a question) never cross the
    split. `prompt`, `answer`, `choices`: as the task's docstring says. `label`: index of the right
    choice or class, None for open answers. `columns`: further data columns, for breakdowns.
    `text_pair`: the second sentence of a classification example, if any. `part`: where the data
    set itself says which examples are for validation and which for test, else empty. `pairs`: what
    a Weigh asks, where the task has its own prompt for each choice. `task`: which one asks, where
    several do (see `tasks.several`), else empty.
    """

    id: str
    group: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    label: int | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    text_pair: str | None = None
    part: Literal["", "validation", "test"] = ""
    pairs: tuple[tuple[str, str], ...] = ()
    task: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one example.

    `score`: 0 or 1 for accuracy tasks, the share of a hit where answers tie, else a value in which
    more is better. `tied`: how many answers or tokens tied at the top; 1 where one stands alone.
    `log_probability`: of the right answer in nats (normalised over labels or choices where there
    are any). `prediction`: what the model said, None where it is not asked to say anything.
    `weight`: how much the example counts in means, such as its number of tokens. `measures`:
    further values by name, reported as weighted means. The rest is None where it has no meaning:
    `rank`: place of an open answer's first token in the vocabulary, 0 is best, the first place of
    `rank_tied` that tie there. `tokens`: length of the right answer.
    `confidence`: probability of the prediction among labels or choices. `brier`:
    sum over labels or choices of the squared error of their probabilities, 0 to 2 (Brier 1950).
    `task`: which one asked, where several do, else None.
    """

    example_id: str
    group: str
    score: float
    log_probability: float
    prediction: str | None
    rank: int | None = None
    tokens: int | None = None
    confidence: float | None = None
    brier: float | None = None
    weight: float = 1.0
    measures: Mapping[str, float] = field(default_factory=dict)
    task: str | None = None
    tied: int = 1
    rank_tied: int | None = None


class Task(Protocol):
    """One benchmark: how its data is read, asked and scored."""

    name: str
    metric: str
    heads: frozenset[Head]

    def load(self, source: str | None, revision: str | None = None) -> list[Example]:
        """Read all examples from a local file or a hub id. Raises InputError on bad data."""
        ...

    def request(self, example: Example, head: Head) -> Request:
        """Return what `head` is asked about `example`."""
        ...

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        ...


class Predictor(Protocol):
    """A model that answers requests; `prepare` runs once per study, `answer` once per trial."""

    head: Head

    def prepare(self, requests: Sequence[Request]) -> Any:
        """Tokenise, sort and batch `requests`; the result is passed to `answer` unchanged."""
        ...

    def answer(self, prepared: Any) -> list[Reply]:
        """Run the model; replies in the order of the prepared requests."""
        ...
