"""Losses of whole texts against windows written out one by one, in float64; see `rounding`."""

import pytest
import torch

from search.evaluation.predictor import make_predictor
from tasks.base import TokenNll
from tasks.errors import InputError

LONG = "The profession of Arun Nehru is politician, Paris is in France. " * 12
SHORT = "BBC One, by"


def _losses(model, stream, first, window):
    """Negative log-probability of stream[first:], each with up to `window` tokens before it."""
    total = 0.0
    with torch.inference_mode():
        for place in range(first, len(stream)):
            ids = stream[max(0, place - window) : place]
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
            total -= logits.log_softmax(-1)[stream[place]].item()
    return total


def _check(model, rounding, nats, losses):
    """`losses`: model -> nats; its float32 run says what the exact one may be missed by."""
    rounding.check(nats, losses(model), losses(rounding.exact(model)))


def _stream(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.bos_token_id, *ids]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_a_text_that_fits_is_read_at_once(build, rounding, family):
    model, tokenizer = build("causal", family)
    predictor = make_predictor("causal", model, tokenizer)
    (reply,) = predictor.answer(predictor.prepare([TokenNll(SHORT)]))
    stream = _stream(tokenizer, SHORT)
    assert reply.tokens == len(stream) - 1
    _check(model, rounding, reply.nats, lambda one: _losses(one, stream, 1, 10**6))


@pytest.mark.parametrize("tokens_per_batch", [1, 8192])
@pytest.mark.parametrize(("window", "stride"), [(16, None), (16, 4), (16, 1), (None, None)])
def test_windows_of_a_long_text(build, rounding, window, stride, tokens_per_batch):
    """By the definition: the first window whole, then strides that end where a window ends."""
    model, tokenizer = build("causal", "gpt2")
    predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=tokens_per_batch)
    (reply,) = predictor.answer(predictor.prepare([TokenNll(LONG, window, stride)]))
    stream = _stream(tokenizer, LONG)
    size = window or 48
    step = stride or size
    assert reply.tokens == len(stream) - 1 > 2 * size
    _check(model, rounding, reply.nats, lambda one: _strides(one, stream, size, step))


def _strides(model, stream, size, step):
    """Nats of stream[1:]: the first window whole, then `step` tokens at the end of each."""
    total, done = 0.0, 0
    with torch.inference_mode():
        while done < len(stream) - 1:
            end = min(len(stream) - 1, done + (step if done else size))
            ids = stream[max(0, end - size) : end]
            logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            for target in range(done, end):
                total -= logits[target - end, stream[target + 1]].item()
            done = end
    return total


def test_a_stride_of_one_reads_all_the_context_there_is(build, rounding):
    model, tokenizer = build("causal", "gpt2")
    predictor = make_predictor("causal", model, tokenizer)
    (reply,) = predictor.answer(predictor.prepare([TokenNll(LONG, 16, 1)]))
    stream = _stream(tokenizer, LONG)
    _check(model, rounding, reply.nats, lambda one: _losses(one, stream, 1, 16))


def test_texts_among_each_other_and_other_requests_keep_their_places(build, rounding):
    model, tokenizer = build("causal", "llama")
    predictor = make_predictor("causal", model, tokenizer)
    requests = [TokenNll(LONG), TokenNll(SHORT), TokenNll(LONG, 16)]
    found = predictor.answer(predictor.prepare(requests))
    alone = [predictor.answer(predictor.prepare([request]))[0] for request in requests]
    assert [r.tokens for r in found] == [r.tokens for r in alone]
    streams = [_stream(tokenizer, request.text) for request in requests]
    windows = [request.window_tokens or 48 for request in requests]
    _check(
        model,
        rounding,
        [r.nats for r in found],
        lambda one: [_strides(one, s, w, w) for s, w in zip(streams, windows, strict=True)],
    )


def test_a_text_is_never_cut(build):
    model, tokenizer = build("causal", "llama")
    prepared = make_predictor("causal", model, tokenizer).prepare([TokenNll(LONG)])
    assert prepared.truncated == 0
    assert max(batch.input_ids.shape[1] for batch in prepared.batches) == 48


def test_an_empty_text_is_refused(build):
    predictor = make_predictor("causal", *build("causal", "gpt2"))
    with pytest.raises(InputError, match="no tokens"):
        predictor.prepare([TokenNll("")])


@pytest.mark.parametrize(("head", "name"), [("masked", "bert"), ("seq2seq", "t5")])
def test_only_causal_models_have_a_likelihood_of_a_text(build, head, name):
    predictor = make_predictor(head, *build(head, name))
    with pytest.raises(InputError, match=f"{head} head cannot answer TokenNll; use a model with"):
        predictor.prepare([TokenNll(SHORT)])
