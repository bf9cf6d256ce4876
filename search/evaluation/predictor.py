"""The predictor for a model's head."""

from __future__ import annotations

from typing import Any, Protocol, get_args

from torch import Tensor

from search.evaluation.causal import CausalPredictor
from search.evaluation.classifier import ClassifierPredictor
from search.evaluation.masked import MaskedPredictor
from search.evaluation.seq2seq import Seq2SeqPredictor
from search.evaluation.token_scorer import NonFiniteLogits
from search.reuse.batching import Batch
from search.reuse.forward import ForwardPasses
from tasks.base import Head, Predictor
from tasks.errors import InputError

__all__ = [
    "CausalPredictor",
    "ClassifierPredictor",
    "MaskedPredictor",
    "NonFiniteLogits",
    "Seq2SeqPredictor",
    "make_predictor",
]


class RecordingPredictor(Predictor, Protocol):
    """A predictor whose passes may begin where an earlier one has been."""

    def record(self, prepared: Any) -> None:
        """Keep activations of the unedited model for what `prepare` gave."""
        ...

    def log_probabilities(self, prepared: Any, batch: Batch) -> Tensor:
        """Of what is scored in one batch of `prepared`, [scored, ...]; it can be differentiated."""
        ...


def make_predictor(
    head: Head,
    model: Any,
    tokenizer: Any,
    tokens_per_batch: int = 8192,
    *,
    chat: bool = False,
    passes: ForwardPasses | None = None,
) -> RecordingPredictor:
    """Return the predictor that asks `model` (a Hugging Face model with this head) questions.

    `tokens_per_batch`: tokens of one forward pass, padding included. The model is put into
    evaluation mode and stays where it is. `chat`: prompts are messages in the tokenizer's chat
    template (causal only). `passes`: how batches run. Raises InputError when the head is unknown,
    or model or tokenizer lack what it needs.
    """
    if chat and head != "causal":
        raise InputError(f"chat_template is on, but a {head} head takes no messages; leave it out")
    match head:
        case "causal":
            return CausalPredictor(model, tokenizer, tokens_per_batch, passes, chat=chat)
        case "seq2seq":
            return Seq2SeqPredictor(model, tokenizer, tokens_per_batch, passes)
        case "masked":
            return MaskedPredictor(model, tokenizer, tokens_per_batch, passes)
        case "classifier":
            return ClassifierPredictor(model, tokenizer, tokens_per_batch, passes)
    raise InputError(f"head {head!r} does not exist; expected one of {', '.join(get_args(Head))}")
