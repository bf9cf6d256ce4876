"""A task scored as LASER's released code scores it, faults included, to compare with its tables.

Source: https://github.com/pratyushasharma/laser. Never the default: three of its rules are wrong,
and are marked below.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tasks.base import (
    MASK,
    Choose,
    Chosen,
    Complete,
    Completed,
    Example,
    Generate,
    Generated,
    Head,
    Outcome,
    Reply,
    Request,
    Task,
)
from tasks.errors import InputError

TASKS = ("bigbench", "bios-gender", "bios-profession", "counterfact", "fever", "hotpotqa")
"""Beside truthfulqa: the tasks of the paper; variants after a colon are meant too."""
WORD = re.compile(r"\w+|[^\w\s]")


class PaperScoring:
    """`task` with the prompts and the rules of LASER's code, for one kind of head.

    Licence, source and size are those of the task. A causal head's choice between two is right
    only if strictly likelier, and log-probabilities are not normalised over the choices but divided
    by the answer's length. A completion is right when the likeliest token is the answer, whatever
    its case. Generated text is right when it contains the answer anywhere, whatever the case.
    Faults kept: the prompt counts as generated text, so an answer quoted in the question is right;
    F1, over sets of words, is divided by max(1, precision + recall); a masked head's multi-token
    answers count one token too many.
    """

    def __init__(self, task: Task, head: Head) -> None:
        """Raises InputError if the paper has no such task."""
        if task.name.partition(":")[0] not in (*TASKS, "truthfulqa"):
            raise InputError(
                f"scoring 'paper' has no rules for task {task.name!r}; it is for "
                f"{', '.join(TASKS)} and truthfulqa"
            )
        self.task = task
        self.head = head
        self.name = task.name
        self.metric = task.metric
        self.heads = task.heads

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read the task's examples."""
        return self.task.load(source, revision)

    def request(self, example: Example, head: Head) -> Request:
        """Return the task's request with the paper's prompt, generated to the full length."""
        match self.task.request(example, head):
            case Choose(prompt, choices):
                return Choose(self._prompt(prompt, head), choices)
            case Complete(prompt, answer):
                return Complete(self._prompt(prompt, head), answer)
            case Generate() as asked:
                return replace(asked, prompt=self._prompt(asked.prompt, head), stop=(), enough=())
            case other:
                return other

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply by the paper's rules."""
        match reply:
            case Chosen():
                return self._chosen(example, reply)
            case Completed():
                score = float(reply.text.strip().lower() == example.answer.strip().lower())
                found = self.task.outcome(example, reply)
                per_token = reply.log_likelihood / self._length(reply.length_tokens)
                return replace(found, score=score, log_probability=per_token)
            case Generated():
                return self._generated(example, reply)
        raise TypeError(f"scoring 'paper' has no rule for {type(reply).__name__}")

    def _prompt(self, prompt: str, head: Head) -> str:
        """The prompt in the wording of the paper's code."""
        family = self.name.partition(":")[0]
        if family == "fever":
            prompt = prompt.replace("true or false? The claim", "true or false. The claim")
        if family == "truthfulqa":
            statement, question, rest = prompt.rpartition(" Is this statement true or false?")
            dot = "" if statement.endswith(".") else "."
            prompt = f"{statement}{dot}{question.lstrip()}{rest}"  # no space, as there
        if head == "masked" and family in ("fever", "truthfulqa", "bigbench", "hotpotqa"):
            prompt = (
                prompt.removesuffix(f"{MASK}.") + MASK if prompt.endswith(f"{MASK}.") else prompt
            )
        return prompt

    def _length(self, tokens: int) -> int:
        """Tokens of an answer; fault: BIG-bench and HotpotQA count one more for masked heads."""
        late = self.head == "masked" and self.name.startswith(("bigbench", "hotpotqa"))
        return tokens + 1 if late else tokens

    def _chosen(self, example: Example, reply: Chosen) -> Outcome:
        if example.label is None:
            raise ValueError(f"example {example.id} has choices but no label")
        values = reply.log_likelihoods
        own = values[example.label]
        others = [value for place, value in enumerate(values) if place != example.label]
        right = own > max(others)
        if len(values) > 2:
            right = own >= max(others) and values.index(max(values)) == example.label
        found = self.task.outcome(example, reply)
        per_token = own / self._length(reply.lengths_tokens[example.label])
        return replace(found, score=float(right), log_probability=per_token)

    def _generated(self, example: Example, reply: Generated) -> Outcome:
        request = self.request(example, self.head)
        if not isinstance(request, Generate):
            raise TypeError(f"{self.name} did not ask for generated text")
        # Fault: the prompt is part of what is searched for the answer.
        text = f"{request.prompt}{reply.text}"
        found = self.task.outcome(example, reply)
        score = float(example.answer.strip().lower() in text.strip().lower())
        per_token = reply.log_likelihood / max(1, self._length(reply.answer_tokens))
        measures = {**found.measures, "f1": paper_f1(text, example.answer)}
        return replace(found, score=score, log_probability=per_token, measures=measures)


def paper_f1(text: str, answer: str) -> float:
    """F1 of the sets of words, with the code's fault: 2pr / max(1, p + r).

    Words and signs are told apart by a pattern; the code's own tokenizer (NLTK's) differs in
    contractions.
    """
    said, right = (set(WORD.findall(part.strip().lower())) for part in (text, answer))
    shared = len(said & right)
    precision, recall = shared / max(1, len(said)), shared / max(1, len(right))
    return 2 * precision * recall / max(1.0, precision + recall)
