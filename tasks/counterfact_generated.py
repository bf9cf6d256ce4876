"""CounterFact with answers looked for in generated text, for tokenizers that split answers."""

from __future__ import annotations

from tasks.answers import score_generated
from tasks.base import Example, Generate, Generated, Head, Outcome, Reply, Request
from tasks.counterfact import CounterFact
from tasks.prompts import continuation

NEW_TOKENS = 10


class CounterFactGenerated(CounterFact):
    """CounterFact as the LASER paper asks it of Llama: the answer within 10 generated tokens.

    Source, licence (MIT), size and data as in `counterfact`. Causal head: 10 tokens after the raw
    prompt, fewer once the answer stands there. Scoring: 1 when the generated text contains the true
    answer as whole words, whatever case, and its log-probability.
    """

    name = "counterfact:generated"
    about = "statements of fact, the answer within 10 generated tokens"
    heads: frozenset[Head] = frozenset({"causal"})

    def request(self, example: Example, head: Head) -> Request:
        """Return the statement to continue."""
        answer = continuation(example.prompt, example.answer)
        return Generate(example.prompt, NEW_TOKENS, answer, enough=(example.answer,))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply."""
        if not isinstance(reply, Generated):
            raise TypeError(f"{self.name} asks for a text, not for {type(reply).__name__}")
        return score_generated(example, reply, whole=False)
