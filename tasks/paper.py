"""A task asked and scored as LASER's released code does it, faults included.

Source: https://github.com/pratyushasharma/laser. Never the default: docs/paper.md lists every
difference and says which of the two is right.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.base import (
    MASK,
    Choose,
    Chosen,
    Completed,
    Example,
    FillAtOnce,
    Generate,
    Generated,
    Head,
    Outcome,
    Reply,
    Request,
    Task,
)
from tasks.errors import InputError
from tasks.hotpotqa import HotpotQA
from tasks.paper_words import words
from tasks.truthfulqa import TruthfulQA

TASKS = ("bigbench", "bios-gender", "bios-profession", "counterfact", "fever", "hotpotqa")
"""Beside truthfulqa: the tasks of the paper; variants after a colon are meant too."""
LLAMA = "hf-internal-testing/llama-tokenizer"
"""Llama 2's tokenizer in a public copy; which of HotpotQA's answers are short is said in it."""
READ_TOKENS = 50
"""Of a biography, a masked head reads so many of its last tokens."""
FILLED = 5
"""Masks that an open answer of a masked head is looked for in."""


class PaperScoring:
    """`task` with the data, prompts and rules of LASER's code, for one kind of head.

    Licence and source are those of the task. A choice between two words is right only if strictly
    likelier, save in BIG-bench, where the first of equals is said. Log-probabilities are not
    normalised over the choices but divided by the answer's length. A completion is right when the
    likeliest token is the answer, whatever its case. Generated text is right when it contains the
    answer anywhere, whatever the case. Faults kept: the prompt counts as generated text, so an
    answer quoted in the question is right; F1, over sets of words, is divided by max(1, precision +
    recall); a masked head reads several answer tokens all masked at once and without special
    tokens, counts one token too many, and is right where five filled masks contain the answer.
    """

    def __init__(self, task: Task, head: Head, tokenizer: str | None = None) -> None:
        """`tokenizer`: what counts the tokens of HotpotQA's answers; None is Llama's.

        Raises InputError if the paper has no such task.
        """
        if task.name.partition(":")[0] not in (*TASKS, "truthfulqa"):
            raise InputError(
                f"scoring 'paper' has no rules for task {task.name!r}; it is for "
                f"{', '.join(TASKS)} and truthfulqa"
            )
        if isinstance(task, TruthfulQA):
            task = TruthfulQA(repeats=True)
        if isinstance(task, HotpotQA):
            task = HotpotQA(tokenizer or LLAMA)
        self.task = task
        self.head = head
        self.name = task.name
        self.family = task.name.partition(":")[0]
        self.metric = task.metric
        self.heads = task.heads

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read the task's examples."""
        return self.task.load(source, revision)

    def request(self, example: Example, head: Head) -> Request:
        """Return the task's request with the paper's prompt, generated to the full length."""
        if head == "masked" and self.family in ("bigbench", "hotpotqa"):
            if example.choices:
                choices = tuple(f" {choice}" for choice in example.choices)
                return FillAtOnce(example.prompt, choices)
            return FillAtOnce(example.prompt, (f" {example.answer}",), FILLED)
        match self.task.request(example, head):
            case Choose(prompt, choices):
                read = (example.prompt.strip(), READ_TOKENS)
                cut = read if head == "masked" and self.family.startswith("bios") else None
                return Choose(self._prompt(example, head) or prompt, choices, cut)
            case Generate() as asked:
                return replace(asked, stop=(), enough=(), whole=head == "causal")
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

    def _prompt(self, example: Example, head: Head) -> str:
        """The prompt in the wording of the paper's code; empty where it is the task's own."""
        masked = head == "masked"
        text = _stop(example.prompt, (".", "?"))
        mask = f" {MASK}" if masked else ""
        dot = "." if masked else ""
        match self.family:
            case "fever":
                question = "Is this claim true or false. The claim is"
                return f"Consider the following claim: {text} {question}{mask}"
            case "truthfulqa":
                # No space before the question, as there.
                statement = _stop(example.prompt, (".",))
                return f"{statement}Is this statement true or false? This statement is{mask}"
            case "bios-gender":
                who = "This person is" if masked else "The gender of this person is"
                question = f"Is the person in this text a male or female? {who}"
            case "bios-profession" if masked:
                question = "The profession of the person in the text is called"
            case "bios-profession":
                question = "What is the profession of the person in this text? "
                question += "The profession of this person is"
            case _:
                return ""
        return f"Consider the following text: {text} {question}{mask}{dot}"

    def _length(self, tokens: int) -> int:
        """Tokens of an answer; fault: BIG-bench and HotpotQA count one more for masked heads."""
        late = self.head == "masked" and self.family in ("bigbench", "hotpotqa")
        return tokens + 1 if late else tokens

    def _chosen(self, example: Example, reply: Chosen) -> Outcome:
        if example.label is None:
            raise ValueError(f"example {example.id} has choices but no label")
        values = reply.log_likelihoods
        own = values[example.label]
        others = [value for place, value in enumerate(values) if place != example.label]
        right = own > max(others)
        if len(values) > 2 or self.family == "bigbench":
            right = values.index(max(values)) == example.label
        found = self.task.outcome(example, reply)
        per_token = own / self._length(reply.lengths_tokens[example.label])
        return replace(found, score=float(right), log_probability=per_token)

    def _generated(self, example: Example, reply: Generated) -> Outcome:
        # Fault: for a causal head the text is the prompt and what follows; see `request`.
        text = reply.text
        found = self.task.outcome(example, reply)
        score = float(example.answer.strip().lower() in text.strip().lower())
        per_token = reply.log_likelihood / max(1, self._length(reply.answer_tokens))
        measures = {**found.measures, "f1": paper_f1(text, example.answer)}
        return replace(found, score=score, log_probability=per_token, measures=measures)


def paper_f1(text: str, answer: str) -> float:
    """F1 of the sets of words, with the code's fault: 2pr / max(1, p + r)."""
    said, right = (set(words(part.strip().lower())) for part in (text, answer))
    shared = len(said & right)
    precision, recall = shared / max(1, len(said)), shared / max(1, len(right))
    return 2 * precision * recall / max(1.0, precision + recall)


def _stop(text: str, ends: tuple[str, ...]) -> str:
    """`text` with a full stop unless it has one of `ends`; a "!" is none of them, as there."""
    text = text.strip()
    return text if text.endswith(ends) else f"{text}."
