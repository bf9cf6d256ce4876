"""The user's own file of questions and answers, or of texts and labels."""

from __future__ import annotations

import json
from typing import Any, get_args

from tasks.answers import score_chosen, score_classes, score_completed
from tasks.base import (
    Chosen,
    Classified,
    Classify,
    Column,
    Completed,
    Example,
    Head,
    Outcome,
    Reply,
    Request,
)
from tasks.datasets import load_rows
from tasks.errors import InputError, nearest
from tasks.identity import identify
from tasks.labels import match_label
from tasks.prompts import ask
from tasks.readers import Row

FIELDS = ("prompt", "answer", "choices", "text", "text_pair", "label", "group", "id")


class Jsonl:
    """Your own data, as .jsonl, .json, .csv, .tsv, .parquet or a hub id, without code.

    Questions: ``prompt`` and ``answer`` (texts), optional ``choices`` (list of texts, the answer
    among them; a JSON list in a table). For a causal head the answer follows the prompt after one
    space; for a masked head it fills ``[MASK]`` in the prompt, or a mask put at its end; for a
    seq2seq head the prompt is the source and the answer the whole target. Without choices an answer
    is right when greedy decoding says every token of it; with choices when its summed
    log-likelihood is the highest.
    Texts: ``text``, optional ``text_pair``, and ``label``: the name of one of the model's labels,
    or its index. For a classification head.
    Optional in both: ``group`` (rows of one group never cross the split; by default rows with the
    same question are a group) and ``id``. Further columns are kept for breakdowns. null and NaN,
    in a table also an empty cell, ``nan``, ``NaN`` and ``<NA>``, mean that a value is missing;
    groups 1 and 1.0 are one. Licence and
    size are those of your file.
    """

    name = "jsonl"
    about = "your own questions or texts, with data"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset(get_args(Head))

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read all rows. Raises InputError that names the line and the field."""
        if source is None:
            raise InputError("task 'jsonl' needs data: give your file, such as questions.jsonl")
        rows = load_rows(source, revision)
        if "prompt" in rows[0]:
            return identify([_question(row) for row in rows])
        if "text" in rows[0]:
            return identify(_texts(rows))
        hint = next((n for n in (nearest(f, ("prompt", "text")) for f in rows[0]) if n), "")
        raise InputError(
            f"{rows[0].where} has the fields {', '.join(rows[0])}; expected prompt and answer, or "
            f"text and label{hint}"
        )

    def request(self, example: Example, head: Head) -> Request:
        """Return the question. Raises InputError when the head cannot answer this kind of row."""
        if _is_question(example) == (head == "classifier"):
            has, wants = (
                ("prompt and answer", "a causal, masked or seq2seq head")
                if head == "classifier"
                else ("text and label", "a classification head")
            )
            raise InputError(f"rows with {has} need {wants}, the model has a {head} head")
        if head == "classifier":
            return Classify(example.prompt, example.text_pair)
        return ask(example, head)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply. Raises InputError when a label is not one of the model's."""
        match reply:
            case Classified(log_probabilities, labels):
                names = labels or tuple(map(str, range(len(log_probabilities))))
                right = match_label(example.answer, names)
                return score_classes(example, log_probabilities, right, names)
            case Chosen():
                return score_chosen(example, reply)
            case Completed():
                return score_completed(example, reply)
        raise TypeError(f"jsonl does not ask for {type(reply).__name__}")


def _is_question(example: Example) -> bool:
    """Rows of texts have a label and no choices of their own; questions never do."""
    return example.label is None or bool(example.choices)


def _question(row: Row) -> Example:
    prompt, answer = row.text("prompt"), row.text("answer").strip()
    choices = _choices(row)
    label = None
    if choices:
        if answer not in choices:
            raise InputError(
                f"{row.where}: answer {answer!r} is not among the choices {', '.join(choices)}"
                + nearest(answer, choices)
            )
        label = choices.index(answer)
    return Example(
        _optional(row, "id"), _optional(row, "group"), prompt, answer, choices, label, _columns(row)
    )


def _choices(row: Row) -> tuple[str, ...]:
    value: Any = row.get("choices")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise InputError(
                f'{row.where}: choices is {value!r}, expected a JSON list such as ["yes", "no"]'
            ) from None
    if not row.has("choices") or value == []:
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise InputError(f"{row.where}: choices is {value!r}, expected a list of two or more texts")
    texts = Row({"choices": value}, row.where).texts("choices")
    choices = tuple(text.strip() for text in texts)
    if len(set(choices)) < len(choices):
        raise InputError(f"{row.where}: choices {', '.join(choices)} contain the same answer twice")
    return choices


def _texts(rows: list[Row]) -> list[Example]:
    names = [row.name("label") for row in rows]
    classes = sorted(set(names))
    return [
        Example(
            _optional(row, "id"),
            _optional(row, "group"),
            row.text("text"),
            name,
            label=classes.index(name),
            columns=_columns(row),
            text_pair=row.text("text_pair") if row.has("text_pair") else None,
        )
        for row, name in zip(rows, names, strict=True)
    ]


def _optional(row: Row, field: str) -> str:
    return row.name(field) if row.has(field) else ""


def _columns(row: Row) -> dict[str, Column]:
    return {
        key: value
        for key, value in row.items()
        if key not in FIELDS and isinstance(value, str | int | float | bool)
    }
