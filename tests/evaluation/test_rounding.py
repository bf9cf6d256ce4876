"""The models of these tests amplify no rounding, whatever processor they run on."""

import pytest
import torch

TEXTS = ["The mother tongue of Arun Nehru is French", "Review: a fine film", "is it"]
MODELS = [
    *[("causal", name) for name in ("gpt2", "llama", "gptj", "gemma2", "cohere", "granite", "opt")],
    *[("masked", name) for name in ("bert", "roberta", "distilbert")],
    *[("seq2seq", name) for name in ("t5", "bart")],
]


def _answers(model, tokenizer, head):
    """Log-probabilities of all tokens at all places of all texts, in one row."""
    found = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        options = {"decoder_input_ids": ids} if head == "seq2seq" else {}
        with torch.inference_mode():
            found.append(model(input_ids=ids, **options).logits.log_softmax(-1).flatten())
    return torch.cat(found)


@pytest.mark.parametrize(("head", "name"), MODELS)
def test_weights_off_by_half_a_rounding_change_little(build, rounding, head, name):
    """In float64 throughout, so that the figure belongs to the model and not to a processor."""
    model, tokenizer = build(head, name)
    exact, moved = rounding.exact(model), rounding.exact(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + 2**-24 * noise)
    off = (_answers(moved, tokenizer, head) - _answers(exact, tokenizer, head)).abs().max()
    assert off < 5e-6, f"expected a model that moves by less than 5e-6 nats, not by {off:.1e}"


def test_what_a_loop_is_off_is_what_we_may_be_off(rounding):
    exact = [-1.0, -20.0]
    rounding.check([-1.0 + 7e-4, -20.0], [-1.0 + 1e-4, -20.0], exact)
    rounding.check([-1.0, -20.0 + 4e-6], exact, exact)
    with pytest.raises(AssertionError, match=r"figure 0: .* the model's own float32 loop"):
        rounding.check([-1.0 + 9e-4, -20.0], [-1.0 + 1e-4, -20.0], exact)
    with pytest.raises(AssertionError, match="2 figures expected, 1 found"):
        rounding.check([-1.0], exact, exact)


def test_a_case_near_a_tie_is_refused(rounding):
    rounding.decided(torch.tensor([1.0, 1.1, -2.0]))
    with pytest.raises(AssertionError, match="a case that rounding cannot decide"):
        rounding.decided(torch.tensor([1.0, 1.0 + 1e-6, -2.0]))
    with pytest.raises(AssertionError, match="a case that rounding cannot decide"):
        rounding.decided(torch.tensor([1.0, 5.0, 1.0]), 0)
