"""GLUE: eight tests of language understanding, one or two sentences each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tasks.answers import score_chosen, score_classes
from tasks.base import Choose, Chosen, Classified, Classify, Example, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.errors import InputError, nearest
from tasks.identity import identify
from tasks.labels import align_labels
from tasks.prompts import continuation
from tasks.readers import Row

REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


@dataclass(frozen=True, slots=True)
class Part:
    """One data set of GLUE.

    `about`: one line for people. `fields`: its sentences. `labels`: the classes in the order of
    their numbers. `words`: how a causal head says each. `prompt`: with a place for each sentence.
    `split`: where the public labels are. `renamed`: columns of GLUE's own files. `names`: columns
    of a file without header.
    """

    about: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    words: tuple[str, ...]
    prompt: str
    split: str = "validation"
    renamed: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()


ENTAILS = ("entailment", "not_entailment")
PAIR = "Premise: {}\nHypothesis: {}\n"
PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "cola": Part(
            "sentences, grammatical or not",
            ("sentence",),
            ("unacceptable", "acceptable"),
            ("no", "yes"),
            "Sentence: {}\nIs this sentence grammatical? Answer:",
            names=("source", "label", "star", "sentence"),
        ),
        "mrpc": Part(
            "pairs of sentences from the news, same meaning or not",
            ("sentence1", "sentence2"),
            ("not_equivalent", "equivalent"),
            ("no", "yes"),
            "Sentence 1: {}\nSentence 2: {}\nDo both sentences mean the same? Answer:",
            renamed={"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
        ),
        "qqp": Part(
            "pairs of questions from Quora, the same question or not",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            ("no", "yes"),
            "Question 1: {}\nQuestion 2: {}\nDo both questions ask the same? Answer:",
            renamed={"is_duplicate": "label"},
        ),
        "qnli": Part(
            "a question and a sentence that answers it or does not",
            ("question", "sentence"),
            ENTAILS,
            ("yes", "no"),
            "Question: {}\nSentence: {}\nDoes the sentence answer the question? Answer:",
        ),
        "rte": Part(
            "a premise and a hypothesis that follows from it or does not",
            ("sentence1", "sentence2"),
            ENTAILS,
            ("yes", "no"),
            PAIR + "Does the hypothesis follow from the premise? Answer:",
        ),
        "mnli": Part(
            "a premise and a hypothesis that follows, may be or contradicts",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            ("yes", "maybe", "no"),
            PAIR + "Does the hypothesis follow from the premise, yes, maybe or no? Answer:",
            split="validation_matched",
            renamed={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
        ),
        "wnli": Part(
            "a sentence with a pronoun and one that resolves it rightly or wrongly",
            ("sentence1", "sentence2"),
            ("not_entailment", "entailment"),
            ("no", "yes"),
            PAIR + "Does the hypothesis follow from the premise? Answer:",
        ),
    }
)


class Glue:
    """One data set of GLUE: cola, mrpc, qqp, qnli, rte, mnli or wnli; SST-2 is a task of its own.

    Source: Wang et al., ICLR 2019, https://gluebenchmark.com; by default the validation split of
    the hub copy (MNLI: the matched one), 71 (wnli) to 40,430 (qqp) examples, since the test labels
    are not public. Licence: that of each source, as listed there. Data: GLUE's own TSV files or the
    hub's columns; ``label`` by number or name.
    Classification head: the sentence or the pair; the model's labels are matched by name, else by
    index. Causal and seq2seq heads: log-likelihood of a word per label (yes, no, maybe) after a
    question about the sentences. Scoring: 1 when the right label is the likeliest, and its
    log-probability.
    """

    metric = "accuracy"
    heads: frozenset[Head] = frozenset({"classifier", "causal", "seq2seq"})

    def __init__(self, part: str) -> None:
        """`part` is a key of PARTS."""
        self.part = PARTS[part]
        self.name = f"glue:{part}"
        self.about = self.part.about
        self.hub = f"nyu-mll/glue:{part}:{self.part.split}"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read examples from a file or a hub id; None is GLUE's validation split, pinned."""
        if source is None:
            source, revision = self.hub, revision or REVISION
        rows = load_rows(source, revision, names=self.part.names, renamed=self.part.renamed)
        return identify([self._example(row) for row in rows])

    def _example(self, row: Row) -> Example:
        labels = self.part.labels
        label = row.name("label").casefold()
        if label.isdecimal() and int(label) < len(labels):
            index = int(label)
        elif label in labels:
            index = labels.index(label)
        else:
            hint = "; the test labels are not public" if label == "-1" else nearest(label, labels)
            raise InputError(
                f"{row.where}: label is {label!r}, expected 0 to {len(labels) - 1} or "
                f"{', '.join(labels)}{hint}"
            )
        first, *more = (row.text(field).strip() for field in self.part.fields)
        pair = more[0] if more else None
        return Example("", "", first, labels[index], labels, index, text_pair=pair)

    def request(self, example: Example, head: Head) -> Request:
        """Return the sentences for a classifier, a question about them for other heads."""
        if head == "classifier":
            return Classify(example.prompt, example.text_pair)
        prompt = self.part.prompt.format(example.prompt, example.text_pair)
        return Choose(prompt, tuple(continuation(prompt, word) for word in self.part.words))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply. Raises InputError when the model's labels are not the task's."""
        match reply:
            case Classified(log_probabilities, labels):
                names = align_labels(self.part.labels, labels or self.part.labels)
                return score_classes(example, log_probabilities, names.index(example.answer), names)
            case Chosen():
                return score_chosen(example, reply)
        raise TypeError(f"{self.name} asks for a class, not for {type(reply).__name__}")
