"""HotpotQA: questions that join two articles, asked without them."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.answers import score_completed, score_generated
from tasks.base import Completed, Example, Generate, Generated, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.hub import hub
from tasks.identity import identify
from tasks.prompts import ask, continuation
from tasks.readers import Row

NEW_TOKENS = 15
MAX_WORDS = 10
"""Answers of more words are left out: they do not fit into the tokens that are generated."""
MAX_TOKENS = 15
"""What LASER's code leaves out instead: answers of more of Llama's tokens, its BOS counted."""


class HotpotQA:
    """Multi-hop questions, answered from what the model knows.

    Source: Yang et al., EMNLP 2018, https://hotpotqa.github.io; by default, as in the LASER paper,
    the first 7,405 training and the 7,405 validation questions of ``fullwiki`` (test answers are
    not public). Licence: CC BY-SA 4.0. Data: ``question`` and ``answer``, optional ``id`` or
    ``_id``, ``type``, ``level``; further columns (the articles) are not used. Answers of more than
    10 words are left out.
    With a `tokenizer`, as under ``scoring: paper``, answers of more than 15 of its tokens instead.
    Prompt: the question, with a question mark if it ends without one, and ``The answer is``.
    Causal and seq2seq head: 15 tokens are generated. Masked head: a mask per answer token, a full
    stop. Scoring: 1 when the generated text contains the answer as whole words, whatever case, or
    when the masks are filled with it; F1 and exact match of the words; the answer's
    log-probability.
    """

    name = "hotpotqa"
    about = "multi-hop questions, the answer within 15 generated tokens"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked", "seq2seq"})
    hub = "hotpotqa/hotpot_qa:fullwiki:train[:7405]+validation"
    hub_revision = "1908d6afbbead072334abe2965f91bd2709910ab"

    def __init__(self, tokenizer: str | None = None) -> None:
        """`tokenizer`: a folder or hub id; its tokens, not words, say which answers are short."""
        self.tokenizer = tokenizer

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read questions from a file or a hub id; None is the paper's choice, pinned."""
        if source is None:
            source, revision = self.hub, revision or self.hub_revision
        rows = load_rows(source, revision, renamed={"_id": "id"})
        drafts = [self._example(row) for row in rows]
        if self.tokenizer is None:
            return identify([draft for draft in drafts if len(draft.answer.split()) <= MAX_WORDS])
        counts = _token_counts(self.tokenizer, [draft.answer for draft in drafts])
        return identify([d for d, n in zip(drafts, counts, strict=True) if n <= MAX_TOKENS])

    def _example(self, row: Row) -> Example:
        question = row.text("question").strip()
        end = "" if question.endswith(("?", ".")) else "?"
        return Example(
            row.name("id") if row.has("id") else "",
            "",
            f"{question}{end} The answer is",
            row.text("answer").strip(),
            columns={key: row.text(key) for key in ("type", "level") if row.has(key)},
        )

    def request(self, example: Example, head: Head) -> Request:
        """Return the question to continue, or to fill in."""
        if head == "masked":
            return ask(example, head)
        return Generate(example.prompt, NEW_TOKENS, continuation(example.prompt, example.answer))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        match reply:
            case Generated():
                return score_generated(example, reply)
            case Completed():
                return score_completed(example, reply)
        raise TypeError(f"hotpotqa asks for a text, not for {type(reply).__name__}")


def _token_counts(name: str, answers: Sequence[str]) -> list[int]:
    """Tokens of each answer, with the special ones that the tokenizer puts around it."""
    from transformers import AutoTokenizer

    with hub() as unreachable:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = unreachable or str(error).strip().partition("\n")[0]
            raise InputError(
                f"the tokenizer {name!r} cannot be loaded ({reason}); scoring 'paper' counts the "
                "tokens of HotpotQA's answers with Llama's: give a local copy as the task's "
                "tokenizer"
            ) from None
    return [len(ids) for ids in tokenizer(list(answers))["input_ids"]] if answers else []
