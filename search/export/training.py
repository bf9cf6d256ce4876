"""Labelled examples as what a Trainer trains on, for any task and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from search.evaluation.encoding import Encoder, Ids, max_tokens
from search.evaluation.seq2seq import Seq2SeqPredictor
from search.phases import Phases
from tasks.base import (
    MASK,
    Choose,
    Chosen,
    Classified,
    Classify,
    Complete,
    Example,
    Generate,
    Reply,
    Request,
    Task,
    TokenNll,
    Weigh,
    Weighed,
)
from tasks.errors import InputError

Row = dict[str, Any]
_IGNORED = -100
"""The label that transformers' losses leave out."""


def right_choice(task: Task, example: Example, request: Request, labels: Sequence[str]) -> int:
    """Index of the right choice or label: the one for which the task gives the highest score."""
    count = {Choose: lambda: len(request.choices), Weigh: lambda: len(request.pairs)}  # type: ignore[union-attr]
    options = count.get(type(request), lambda: len(labels))()
    scores = [
        task.outcome(example, _sure_of(request, index, options, labels)).score
        for index in range(options)
    ]
    return max(range(options), key=lambda index: scores[index])


def _sure_of(request: Request, index: int, count: int, labels: Sequence[str]) -> Reply:
    """A reply that is nearly certain of one choice."""
    values = tuple(-1e-6 if i == index else -30.0 for i in range(count))
    if isinstance(request, Classify):
        return Classified(values, tuple(labels))
    if isinstance(request, Choose):
        return Chosen(values, (1,) * count)
    return Weighed(values, tuple(i == index for i in range(count)), (1,) * count)


def right_answer(task: Task, example: Example, request: Request) -> tuple[str, str]:
    """(prompt, right continuation) of a question that is no Classify."""
    match request:
        case Complete(prompt, answer):
            return prompt, answer
        case Choose(prompt, choices):
            return prompt, choices[right_choice(task, example, request, ())]
        case Weigh(pairs):
            return pairs[right_choice(task, example, request, ())]
        case Generate(prompt, _, answer):
            return prompt, answer or f" {example.answer}"
        case TokenNll(text):
            return "", text
    raise TypeError(f"{type(request).__name__} has no continuation")


def training_rows(
    model: Any, tokenizer: Any, task: Task, examples: Sequence[Example], head: Any
) -> list[Row]:
    """Token rows with labels: input_ids, labels and what else the tokenizer gives.

    The loss is that of the right label, or of the right answer's tokens alone. Rows that are too
    long lose their left end. Raises InputError for a question that has no right answer.
    """
    requests = [task.request(example, head) for example in examples]
    if head == "classifier":
        return _classified(model, tokenizer, task, examples, requests)
    pairs = [right_answer(task, x, r) for x, r in zip(examples, requests, strict=True)]
    encoder, limit = Encoder(tokenizer), max_tokens(model, tokenizer)
    if head == "seq2seq":
        start = Seq2SeqPredictor(model, tokenizer).start
        return [_sequence(encoder, start, prompt, answer, limit) for prompt, answer in pairs]
    if head == "masked":
        return [_masked(encoder, prompt, answer, limit) for prompt, answer in pairs]
    rows = []
    for prompt, answer in encoder.split(pairs):
        ids = (*encoder.open(prompt), *answer)[-limit if limit else 0 :]
        rows.append({"input_ids": list(ids), "labels": _tail(ids, len(answer))})
    return rows


def _tail(ids: Sequence[int], scored: int) -> list[int]:
    """Labels of which only the last `scored` count."""
    first = len(ids) - scored
    return [token if place >= first else _IGNORED for place, token in enumerate(ids)]


def _classified(
    model: Any, tokenizer: Any, task: Task, examples: Sequence[Example], requests: Sequence[Request]
) -> list[Row]:
    names = model.config.id2label
    labels = [names[index] for index in sorted(names)]
    limit = max_tokens(model, tokenizer)
    rows = []
    for example, request in zip(examples, requests, strict=True):
        if not isinstance(request, Classify):
            raise InputError(f"a classifier cannot learn {type(request).__name__}")
        row = dict(
            tokenizer(
                request.text, request.text_pair, truncation=limit is not None, max_length=limit
            )
        )
        rows.append(row | {"labels": right_choice(task, example, request, labels)})
    return rows


def _sequence(encoder: Encoder, start: Ids, prompt: str, answer: str, limit: int | None) -> Row:
    """The decoder is given what it starts with, and scored on the answer and the end token."""
    source, target = encoder.plain([prompt, answer.lstrip(" ")])
    room = None if limit is None else limit - len(encoder.prefix) - len(encoder.suffix)
    wanted = [*target, *encoder.suffix]
    return {
        "input_ids": [*encoder.prefix, *source[:room], *encoder.suffix],
        "decoder_input_ids": [*start, *wanted[:-1]],
        "labels": [*([_IGNORED] * (len(start) - 1)), *wanted],
    }


def _masked(encoder: Encoder, prompt: str, answer: str, limit: int | None) -> Row:
    mask, (tokens,) = encoder.tokenizer.mask_token, encoder.plain([answer])
    (body,) = encoder.plain([prompt.replace(MASK, mask).replace(mask, mask * len(tokens))])
    ids = [*encoder.prefix, *body, *encoder.suffix]
    wanted = iter(tokens)
    labels = [
        next(wanted, _IGNORED) if token == encoder.tokenizer.mask_token_id else _IGNORED
        for token in ids
    ]
    return {"input_ids": ids[:limit], "labels": labels[:limit]}


def step_counter(phases: Phases) -> Any:
    """A callback for a Trainer, which tells the phase that it is in how many steps are done."""
    from transformers import TrainerCallback

    class Counter(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            """After each step of the optimiser."""
            phases.advance(int(state.global_step))

    return Counter()


class Collator:
    """Pads rows on the right to the longest of a batch; what is padded has no label."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows -> input_ids, attention_mask, labels and token_type_ids [rows, tokens] int64."""
        fill = {
            "input_ids": self.pad_id,
            "decoder_input_ids": self.pad_id,
            "labels": _IGNORED,
        }
        batch: dict[str, Tensor] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            batch[name] = (
                torch.tensor(values)
                if isinstance(values[0], int)
                else _pad(values, fill.get(name, 0))
            )
        if "attention_mask" not in batch:
            lengths = [[1] * len(row["input_ids"]) for row in rows]
            batch["attention_mask"] = _pad(lengths, 0)
        return batch


def _pad(values: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, values))
    return torch.tensor([[*row, *([fill] * (width - len(row)))] for row in values])
