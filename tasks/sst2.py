"""SST-2: whether a sentence from a film review is positive."""

from __future__ import annotations

from tasks.answers import score_chosen, score_classes
from tasks.base import Choose, Chosen, Classified, Classify, Example, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError
from tasks.identity import identify
from tasks.labels import align_labels
from tasks.prompts import continuation
from tasks.readers import Row

LABELS = ("negative", "positive")


class Sst2:
    """Stanford Sentiment Treebank with two classes, as in GLUE.

    Source: Socher et al., EMNLP 2013, https://nlp.stanford.edu/sentiment; by default the 872
    sentences of GLUE's validation split (its test labels are not public). Licence: not stated by
    its authors. Data: columns ``sentence`` and ``label`` (0 negative, 1 positive, or the words); a
    table without a header has them in that order.
    Classification head: the sentence; the model's labels are matched by name where it calls them
    negative and positive, else by index. Causal and seq2seq head: log-likelihood of " negative"
    against " positive" after ``Review: SENTENCE``, a line break and ``Sentiment:``. Scoring: 1 when
    the right label is the likelier, and the log-probability of the right label.
    """

    name = "sst2"
    about = "sentences from film reviews, positive or negative"
    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"classifier", "causal", "seq2seq"})
    hub = "nyu-mll/glue:sst2:validation"
    hub_revision = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read sentences from a file or a hub id; None is GLUE's validation split, pinned."""
        if source is None:
            source, revision = self.hub, revision or self.hub_revision
        rows = load_rows(
            source, revision, names=("sentence", "label"), renamed={"text": "sentence"}
        )
        return identify([self._example(row) for row in rows])

    def _example(self, row: Row) -> Example:
        label = row.name("label").lower()
        index = {"0": 0, "1": 1, "negative": 0, "positive": 1}.get(label)
        if index is None:
            raise InputError(
                f"{row.where}: label is {label!r}, expected 0 (negative) or 1 (positive)"
            )
        return Example("", "", row.text("sentence").strip(), LABELS[index], LABELS, index)

    def request(self, example: Example, head: Head) -> Request:
        """Return the sentence for a classifier, the two words to choose from for a causal head."""
        if head == "classifier":
            return Classify(example.prompt)
        prompt = f"Review: {example.prompt}\nSentiment:"
        return Choose(prompt, tuple(continuation(prompt, label) for label in LABELS))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply. Raises InputError when the model's labels are not these two."""
        match reply:
            case Classified(log_probabilities, labels):
                names = align_labels(LABELS, labels or LABELS)
                return score_classes(example, log_probabilities, names.index(example.answer), names)
            case Chosen():
                return score_chosen(example, reply)
        raise TypeError(f"sst2 asks for a class, not for {type(reply).__name__}")
