"""CounterFact: statements of fact that a model completes with the true answer, or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.answers import score_completed
from tasks.base import Column, Completed, Example, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.identity import content_hash, identify
from tasks.prompts import ask
from tasks.readers import Row


class CounterFact:
    """Facts as statements to complete, each with its paraphrases.

    Source: Meng et al. (ROME), NeurIPS 2022, https://rome.baulab.info, 21,919 facts in 65,757
    prompts; MIT licence. Two schemas are read: ROME's (``requested_rewrite`` with ``prompt``,
    ``subject``, ``target_true``; ``paraphrase_prompts``) and EasyEdit's flat one (``prompt``,
    ``ground_truth``, ``rephrase_prompt``, ``subject``). By default the hub copy of ROME's file.
    Causal head: the answer follows the raw prompt after one space. Masked head: the prompt, a mask
    per answer token, a full stop. Scoring: 1 when greedy decoding says every token of the true
    answer, and its log-probability. The prompts of one fact (subject and statement) are a group.
    """

    name = "counterfact"
    about = "facts as statements to complete, with paraphrases"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked"})
    hub = "azhx/counterfact::train+test"
    hub_revision = "c01c413f856ee38f5c080c9fc5e87aff478e2ff9"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read facts from a file or a hub id; None is the pinned hub copy of ROME's file."""
        if source is None:
            source, revision = self.hub, revision or self.hub_revision
        rows = load_rows(source, revision)
        return identify([example for row in rows for example in self._examples(row)])

    def _examples(self, row: Row) -> Iterator[Example]:
        fact = _rome(row) if "requested_rewrite" in row else _flat(row)
        group = content_hash(fact["subject"], fact["statement"])
        columns: dict[str, Column] = {
            key: row[key] for key in ("case_id",) if isinstance(row.get(key), int | str)
        }
        if fact["relation"]:
            columns["relation"] = fact["relation"]
        for number, prompt in enumerate(fact["prompts"]):
            kind = "paraphrase" if number else "statement"
            yield Example("", group, prompt, fact["answer"], columns={**columns, "kind": kind})

    def request(self, example: Example, head: Head) -> Request:
        """Return the statement to complete."""
        return ask(example, head)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        if not isinstance(reply, Completed):
            raise TypeError(f"counterfact asks for a completion, not for {type(reply).__name__}")
        return score_completed(example, reply)


def _rome(row: Row) -> dict[str, Any]:
    rewrite = row["requested_rewrite"]
    if not isinstance(rewrite, dict) or not isinstance(rewrite.get("target_true"), dict):
        raise InputError(
            f"{row.where}: field 'requested_rewrite' is not a ROME record; expected an object with "
            "prompt, subject and target_true"
        )
    inner = Row(rewrite, f"{row.where}, requested_rewrite")
    answer = Row(rewrite["target_true"], f"{inner.where}, target_true").text("str")
    statement, subject = inner.text("prompt"), inner.text("subject")
    if "{}" not in statement:
        raise InputError(f"{inner.where}: prompt is {statement!r}, expected {{}} for the subject")
    paraphrases = row.get("paraphrase_prompts") or []
    if not all(isinstance(prompt, str) and prompt.strip() for prompt in paraphrases):
        raise InputError(f"{row.where}: field 'paraphrase_prompts' must be a list of texts")
    return {
        "subject": subject,
        "statement": statement,
        "answer": answer.strip(),
        "relation": rewrite.get("relation_id"),
        "prompts": [statement.replace("{}", subject).rstrip(), *(p.rstrip() for p in paraphrases)],
    }


def _flat(row: Row) -> dict[str, Any]:
    prompt = row.text("prompt").rstrip()
    subject = str(row.get("subject") or "")
    prompts = [prompt]
    if row.has("rephrase_prompt"):
        prompts.append(row.text("rephrase_prompt").rstrip())
    return {
        "subject": subject,
        "statement": prompt,
        "answer": row.text("ground_truth").strip(),
        "relation": row.get("relation_id"),
        "prompts": prompts,
    }
