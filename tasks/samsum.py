"""SAMSum: chats and their summaries."""

from __future__ import annotations

from functools import cached_property

from tasks.base import Example, Generate, Generated, Head, Outcome, Reply, Request
from tasks.datasets import load_rows
from tasks.identity import identify
from tasks.prompts import continuation
from tasks.rouge import Rouge

NEW_TOKENS = 100


class SamSum:
    """Dialogues of messenger conversations, to be summarised.

    Source: Gliwa et al., EMNLP workshop 2019, https://arxiv.org/abs/1911.12237; by default the 819
    dialogues of the test split. Licence: CC BY-NC-ND 4.0. Data: ``dialogue`` and ``summary``,
    optional ``id``; rows without a dialogue are left out (the training split has one).
    Seq2seq head: ``summarize: DIALOGUE``, as T5 was trained. Causal head: a request to summarise,
    the dialogue, ``Summary:``; the summary ends at a line break. At most 100 tokens are generated.
    Scoring: ROUGE-L's F-measure; also ROUGE-1, ROUGE-2, ROUGE-Lsum and the loss, which is the mean
    negative log-probability per token of the reference summary. Needs the extra ``rouge``.
    """

    name = "samsum"
    about = "chats to be summarised, by ROUGE"
    metric = "rougeL"
    heads: frozenset[Head] = frozenset({"causal", "seq2seq"})
    hub = "knkarthick/samsum::test"
    hub_revision = "2a6b79b3e3c939aebb149d9109d7cdb78a9c2d3b"

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read dialogues from a file or a hub id; None is the pinned test split."""
        _ = self._rouge  # a missing package shows before a model is loaded
        if source is None:
            source, revision = self.hub, revision or self.hub_revision
        drafts = [
            Example(
                row.name("id") if row.has("id") else "",
                "",
                row.text("dialogue").replace("\r\n", "\n").strip(),
                row.text("summary").strip(),
            )
            for row in load_rows(source, revision)
            if "dialogue" not in row or str(row["dialogue"] or "").strip()
        ]
        return identify(drafts)

    def request(self, example: Example, head: Head) -> Request:
        """Return the dialogue to summarise."""
        if head == "seq2seq":
            return Generate(f"summarize: {example.prompt}", NEW_TOKENS, example.answer)
        prompt = f"Summarize the conversation.\n\n{example.prompt}\n\nSummary:"
        return Generate(prompt, NEW_TOKENS, continuation(prompt, example.answer), stop=("\n",))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        if not isinstance(reply, Generated):
            raise TypeError(f"samsum asks for a text, not for {type(reply).__name__}")
        text = reply.text.strip()
        each = {
            way: self._rouge.score(way.strip(), example.answer)
            for way in (reply.text, *(way for way, _ in reply.texts))
        }
        found = {
            name: reply.mean({way: scores[name] for way, scores in each.items()}.__getitem__)
            for name in each[reply.text]
        }
        return Outcome(
            example.id,
            example.group,
            found["rougeL"],
            reply.log_likelihood,
            text,
            tokens=reply.answer_tokens,
            tied=reply.tied,
            measures={**found, "loss": -reply.log_likelihood / reply.answer_tokens},
        )

    @cached_property
    def _rouge(self) -> Rouge:
        return Rouge()
