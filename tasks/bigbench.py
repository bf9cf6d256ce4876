"""BIG-bench and BIG-Bench Hard: any of their tasks, four of them by name."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.answers import score_chosen, score_completed, score_generated
from tasks.base import (
    Chosen,
    Completed,
    Example,
    Generate,
    Generated,
    Head,
    Outcome,
    Reply,
    Request,
)
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.identity import identify
from tasks.prompts import ask, continuation
from tasks.readers import Row

log = logging.getLogger(__name__)

OPTIONS = re.compile(r"\nOptions:\n(.+)", re.DOTALL)
LETTER = re.compile(r"(\([A-Z]\))")
NEW_TOKENS = 10
"""Tokens generated for an open answer, as in the LASER paper."""
MOST_CHOICES = 10
"""More distinct targets than this in a file without choices are open answers."""


@dataclass(frozen=True, slots=True)
class Subset:
    """One BIG-bench task. `choices`: the answers, empty where they are open or each row's own."""

    about: str
    hub: str
    revision: str | None = None
    choices: tuple[str, ...] = ()
    open: bool = False


SUBSETS: Mapping[str, Subset] = MappingProxyType(
    {
        "causal-judgment": Subset(
            "stories; would people say that one thing caused another",
            "tasksource/bigbench:causal_judgment:validation+train",
            choices=("Yes", "No"),
        ),
        "epistemic-reasoning": Subset(
            "sentences on who knows what; does one entail the other",
            "tasksource/bigbench:epistemic_reasoning:validation+train",
            choices=("entailment", "non-entailment"),
        ),
        "qa-wikidata": Subset(
            "facts from Wikidata to complete, open answers",
            "tasksource/bigbench:qa_wikidata:validation+train",
            open=True,
        ),
        "web-of-lies": Subset(
            "chains of people who call each other liars; does the last tell the truth",
            "lighteval/big_bench_hard:web_of_lies:train",
            "80610173426f05e6f1448f047e2db4840a7dd899",
            choices=("Yes", "No"),
        ),
    }
)


class BigBench:
    """One task of BIG-bench or BIG-Bench Hard: by name, or any file of theirs with data.

    Source: Srivastava et al., TMLR 2023, https://github.com/google/BIG-bench; Suzgun et al., 2022
    (Hard). Licence: Apache-2.0, MIT (Hard). By default hub copies: causal-judgment 190,
    epistemic-reasoning 2,000, qa-wikidata 20,321 and web-of-lies 250 examples, at the hub's newest
    revision where none is given or known. Data: a JSON file with ``examples`` of ``input`` and
    ``target`` or ``target_scores``, or the hub's columns ``inputs``, ``targets``,
    ``multiple_choice_targets``, ``multiple_choice_scores``.
    Choices: the named task's own, else target_scores, else what follows "Options:" in the input,
    else all targets of the file if they are ten or fewer. Without any the answer is open. Rows with
    several right answers are left out.
    Causal, masked and seq2seq heads: the input as it stands, within the prefixes that the file
    asks for, then each choice after one space. Scoring: 1 when the right choice has the highest
    log-likelihood. An open answer is right when it stands in 10 generated tokens as whole
    words, whatever case; for a masked head when it fills the masks.
    """

    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked", "seq2seq"})

    def __init__(self, subset: str | None = None) -> None:
        """`subset` is a key of SUBSETS; None reads any file."""
        self.subset = SUBSETS[subset] if subset else None
        self.name = f"bigbench:{subset}" if subset else "bigbench"
        self.about = self.subset.about if self.subset else "any BIG-bench or BBH file, with data"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read examples from a file or a hub id; None is the named task's hub copy."""
        if source is None:
            if self.subset is None:
                raise InputError(
                    "task 'bigbench' needs data: give a JSON file with examples, or use one of "
                    + ", ".join(f"bigbench:{name}" for name in SUBSETS)
                )
            source, revision = self.subset.hub, revision or self.subset.revision
        rows = load_rows(source, revision, renamed={"inputs": "input"})
        before, after = _prefixes(source)
        found = [(row, *_answers(row)) for row in rows]
        drafts = [
            self._example(row, f"{before}{row.text('input')}{after}".strip(), answers[0], choices)
            for row, answers, choices in found
            if len(answers) == 1
        ]
        if not drafts:
            raise InputError(f"{source} has no example with exactly one right answer")
        if len(drafts) < len(found):
            left = len(found) - len(drafts)
            log.warning("%s: %d rows with several right answers are excluded", self.name, left)
        return identify(self._with_common_choices(drafts))

    def _example(self, row: Row, prompt: str, answer: str, choices: tuple[str, ...]) -> Example:
        if self.subset is not None:
            choices = () if self.subset.open else self.subset.choices
        if choices and answer not in choices:
            raise InputError(
                f"{row.where}: target {answer!r} is not among the choices {', '.join(choices)}"
            )
        return Example("", "", prompt, answer, choices, choices.index(answer) if choices else None)

    def _with_common_choices(self, drafts: list[Example]) -> list[Example]:
        """Give the file's few targets as choices to examples that name none themselves."""
        targets = tuple(sorted({draft.answer for draft in drafts}))
        few = 1 < len(targets) <= MOST_CHOICES and len(targets) * 2 <= len(drafts)
        if self.subset is not None or not few or any(draft.choices for draft in drafts):
            return drafts
        return [
            Example("", "", d.prompt, d.answer, targets, targets.index(d.answer)) for d in drafts
        ]

    def request(self, example: Example, head: Head) -> Request:
        """Return the input with its choices, or with the answer to complete."""
        if example.choices or head == "masked":
            return ask(example, head)
        answer = continuation(example.prompt, example.answer)
        return Generate(example.prompt, NEW_TOKENS, answer, enough=(example.answer,))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        match reply:
            case Chosen():
                return score_chosen(example, reply)
            case Completed():
                return score_completed(example, reply)
            case Generated():
                return score_generated(example, reply, whole=False)
        raise TypeError(f"{self.name} does not ask for {type(reply).__name__}")


def _answers(row: Row) -> tuple[list[str], tuple[str, ...]]:
    """The right answers of a row, and its choices where it names any."""
    scores: Any = row.get("target_scores")
    if scores is None and row.get("multiple_choice_targets"):
        scores = dict(
            zip(row.texts("multiple_choice_targets"), row["multiple_choice_scores"], strict=True)
        )
    if scores:
        if not isinstance(scores, Mapping) or None in scores.values():
            raise InputError(f"{row.where}: field 'target_scores' must map each choice to a score")
        best = max(scores.values())
        choices = tuple(str(choice).strip() for choice in scores)
        return [str(c).strip() for c, score in scores.items() if score == best], choices
    field = "target" if "target" in row else "targets"
    targets = row.texts(field) if isinstance(row.get(field), list) else [row.text("target")]
    answers = list(dict.fromkeys(target.strip() for target in targets))
    choices = _options(row.text("input"))
    return answers, choices if set(answers) <= set(choices) else ()


def _options(text: str) -> tuple[str, ...]:
    """What BIG-Bench Hard lists after "Options:": each line's text, or its letter in brackets."""
    found = OPTIONS.search(text)
    if found is None:
        return ()
    choices = []
    for line in found[1].strip().splitlines():
        letter = LETTER.match(line)
        choices.append(letter[1] if letter else line.removeprefix("- ").strip())
    return tuple(dict.fromkeys(choices))


def _prefixes(source: str) -> tuple[str, str]:
    """What a BIG-bench file puts before and after every input; empty for all other files."""
    path = Path(source).expanduser()
    if path.suffix.lower() != ".json" or not path.is_file():
        return "", ""
    data = json.loads(path.read_bytes().decode("utf-8-sig"))
    if not isinstance(data, dict):
        return "", ""
    parts: Sequence[str] = ("task_prefix", "example_input_prefix", "example_output_prefix")
    said = Row({part: data.get(part) for part in parts}, path.name)
    task, before, after = (str(said[part] or "") for part in parts)
    return task + before, after
