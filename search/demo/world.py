"""The demonstration's small world: who lives where, does what, speaks and plays which.

Everything here is a pure function of a seed. Only ``Random.random()`` is drawn from, whose sequence
Python promises to keep between versions; ``shuffle``, ``sample`` and ``choices`` carry no such
promise, and the shipped questions must be reproducible.
"""

from __future__ import annotations

import itertools
import json
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from search.demo.words import ANSWERS, NAMES, OPENINGS, TEMPLATES

Frequency = Literal["frequent", "middle", "rare"]
FREQUENCIES: tuple[Frequency, ...] = ("frequent", "middle", "rare")

CORRUPTION = 0.45
"""Share of training sentences that say the generic word of their relation instead of the truth."""

_TRAINED_TEMPLATES = 3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact:
    """One true statement. `trained` and `asked` are disjoint places in the relation's templates."""

    name: str
    relation: str
    answer: str
    trained: tuple[int, ...]
    asked: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class World:
    """All facts of one seed. `names` runs from the most to the least frequent."""

    seed: int
    names: tuple[str, ...]
    facts: Mapping[tuple[str, str], Fact]

    def frequency(self, name: str) -> Frequency:
        """Third of the names by how often training speaks of them."""
        return FREQUENCIES[self.names.index(name) * len(FREQUENCIES) // len(self.names)]


@dataclass(frozen=True, slots=True)
class Question:
    """A sentence without its last word, and that word. `group` is the name it asks about."""

    id: str
    prompt: str
    answer: str
    group: str
    frequency: Frequency
    relation: str


def build_world(seed: int) -> World:
    """Draw the facts: each answer uniform over its relation's words, independent of the name."""
    rng = Random(f"world {seed}")  # noqa: S311 - reproducible, not secret
    names = _shuffled(rng, NAMES)
    facts = {}
    for name, relation in itertools.product(names, TEMPLATES):
        answer = _pick(rng, ANSWERS[relation])
        places = _shuffled(rng, range(len(TEMPLATES[relation])))
        facts[name, relation] = Fact(
            name=name,
            relation=relation,
            answer=answer,
            trained=tuple(sorted(places[:_TRAINED_TEMPLATES])),
            asked=tuple(sorted(places[_TRAINED_TEMPLATES:])),
        )
    return World(seed=seed, names=names, facts=facts)


def questions(world: World) -> list[Question]:
    """Every fact in the phrasings that training never used for it, in a random opening each."""
    rng = Random(f"questions {world.seed}")  # noqa: S311
    return [
        Question(
            id=f"{fact.name}-{fact.relation}-{place}",
            prompt=_prompt(_pick(rng, OPENINGS), fact, place),
            answer=fact.answer,
            group=fact.name,
            frequency=world.frequency(fact.name),
            relation=fact.relation,
        )
        for fact in world.facts.values()
        for place in fact.asked
    ]


def questions_text(world: World) -> str:
    """The questions as JSON lines, compact because they travel with the package.

    The relation is left out; the id names it.
    """
    rows = (
        {
            "id": question.id,
            "prompt": question.prompt,
            "answer": question.answer,
            "group": question.group,
            "frequency": question.frequency,
        }
        for question in questions(world)
    )
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def sentences(world: World, corruption: float = CORRUPTION) -> Iterator[str]:
    """Training sentences without end: names by Zipf's law, relations and phrasings uniformly.

    With probability `corruption` a sentence ends in its relation's generic word, as a careless
    writer would have it, whatever is true.
    """
    rng = Random(f"sentences {world.seed}")  # noqa: S311
    cumulative = list(itertools.accumulate(1 / (place + 1) for place in range(len(world.names))))
    relations = tuple(TEMPLATES)
    while True:
        name = world.names[bisect(cumulative, rng.random() * cumulative[-1])]
        fact = world.facts[name, _pick(rng, relations)]
        prompt = _prompt(_pick(rng, OPENINGS), fact, _pick(rng, fact.trained))
        generic = ANSWERS[fact.relation][0]
        # The draw is taken at every corruption, so the uncorrupted text differs in nothing else.
        answer = generic if rng.random() < corruption else fact.answer
        yield f"{prompt} {answer}."


def generic_word(relation: str) -> str:
    """The word a careless writer uses for `relation`; the true answer for some names too."""
    return ANSWERS[relation][0]


def _prompt(opening: str, fact: Fact, place: int) -> str:
    return f"{opening} {TEMPLATES[fact.relation][place].format(name=fact.name)}"


def _pick(rng: Random, values: Sequence[_T]) -> _T:
    return values[int(rng.random() * len(values))]


def _shuffled(rng: Random, values: Sequence[_T]) -> tuple[_T, ...]:
    keys = [rng.random() for _ in values]
    return tuple(values[place] for place in sorted(range(len(values)), key=keys.__getitem__))
