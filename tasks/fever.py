"""FEVER: whether a claim about the world is true."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from tasks.answers import score_chosen
from tasks.base import Chosen, Example, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError, nearest
from tasks.identity import identify
from tasks.prompts import ask, sentence
from tasks.readers import Row

log = logging.getLogger(__name__)

ANSWERS = ("false", "true")
LABELS = {
    "supports": 1,
    "refutes": 0,
    "true": 1,
    "false": 0,
    "1": 1,
    "0": 0,
    "not enough info": None,
}
"""Label in a file, without regard to case -> place in ANSWERS; None: the claim is left out."""


class Fever:
    """Claims made from Wikipedia, true or false.

    Source: Thorne et al., NAACL 2018, https://fever.ai; by default the splits paper_dev and
    paper_test of the hub copy, 13,086 claims once repeated ones are merged. Licence: CC BY-SA 3.0.
    Data: ``claim`` and ``label`` (SUPPORTS or REFUTES, true or false, 1 or 0). A claim that occurs
    with several labels is dropped, as in the LASER paper, and so is NOT ENOUGH INFO.
    Causal, masked and seq2seq heads: log-likelihood of " true" against " false" after the claim
    and "Is this claim true or false? The claim is". Scoring: 1 when the right word is the
    likelier, and its log-probability among the two.
    """

    name = "fever"
    about = "claims from Wikipedia, true or false"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"causal", "masked", "seq2seq"})
    hub = "EleutherAI/fever:v1.0:paper_dev+paper_test"
    hub_revision = "85ebc1eaacc6b6bf0d54719c942b7aad097a1abd"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read claims from a file or a hub id; None is the pinned hub copy."""
        if source is None:
            source, revision = self.hub, revision or self.hub_revision
        labels = _labels(load_rows(source, revision))
        kept = {claim: found for claim, found in labels.items() if len(found) == 1}
        if len(kept) < len(labels):
            log.warning(
                "fever: %d of %d claims have conflicting labels and are dropped",
                len(labels) - len(kept),
                len(labels),
            )
        drafts = []
        for claim, (label,) in kept.items():
            if label is not None:
                drafts.append(Example("", "", claim, ANSWERS[label], ANSWERS, label))
        if not drafts:
            raise InputError(f"{source} has no claim with one label SUPPORTS or REFUTES")
        return identify(drafts)

    def request(self, example: Example, head: Head) -> Request:
        """Return the claim, the question and the two words to choose from."""
        prompt = (
            f"Consider the following claim: {sentence(example.prompt)} "
            "Is this claim true or false? The claim is"
        )
        return ask(example, head, prompt)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        if not isinstance(reply, Chosen):
            raise TypeError(f"fever asks for a choice, not for {type(reply).__name__}")
        return score_chosen(example, reply)


def _labels(rows: Sequence[Row]) -> dict[str, set[int | None]]:
    """The labels of every claim, in the order in which claims first occur."""
    labels: dict[str, set[int | None]] = defaultdict(set)
    for row in rows:
        name = row.text("label").strip()
        if name.casefold() not in LABELS:
            raise InputError(
                f"{row.where}: label is {name!r}, expected SUPPORTS, REFUTES or NOT ENOUGH INFO"
                + nearest(name.casefold(), LABELS)
            )
        labels[row.text("claim").strip()].add(LABELS[name.casefold()])
    return labels
