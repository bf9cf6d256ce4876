"""Encoder-decoders against their own loss and their own greedy search, one question at a time.

Exact is the loop in float64; what float32 may be off is said by the loop in float32.
"""

import pytest
import torch

from search.evaluation.predictor import make_predictor
from tasks.base import Choose, Classify, Complete, Generate
from tasks.errors import InputError

FAMILIES = ["t5", "bart"]
REQUESTS = [
    Complete("The mother tongue of Danielle Darrieux is", " French"),
    Choose("Review: a fine film\nSentiment:", (" negative", " positive")),
    Choose("The profession of Arun Nehru is", (" politician", " French politician", " film")),
    Complete("BBC One is my favorite product out of everything owned by", " BBC"),
    Complete("is", "it"),
]
PROMPTS = ["The mother tongue of", "BBC One, by", "Review: a fine film\nSentiment: positive", "is"]


def _plain(model, tokenizer, prompt, answer):
    """(log-likelihood, tokens) of the labels by the model's own loss, without a leading BOS."""
    source = torch.tensor([tokenizer(prompt)["input_ids"]])
    labels = tokenizer(text_target=answer.strip())["input_ids"]
    begins = int(labels[0] == tokenizer.bos_token_id)
    with torch.inference_mode():
        logits = model(input_ids=source, labels=torch.tensor([labels])).logits[0].double()
    table = logits.log_softmax(-1)
    return sum(table[n, t].item() for n, t in enumerate(labels) if n >= begins), labels[begins:]


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_equal_a_plain_loop(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("seq2seq", family)
    predictor = make_predictor("seq2seq", model, tokenizer, tokens_per_batch=tokens_per_batch)
    prepared = predictor.prepare(REQUESTS)
    twin = rounding.exact(model)
    found, plain, exact = [], [], []
    for request, reply in zip(REQUESTS, predictor.answer(prepared), strict=True):
        answers = [request.answer] if isinstance(request, Complete) else request.choices
        right = [_plain(twin, tokenizer, request.prompt, answer) for answer in answers]
        plain += [_plain(model, tokenizer, request.prompt, answer)[0] for answer in answers]
        exact += [one[0] for one in right]
        if isinstance(request, Complete):
            found.append(reply.log_likelihood)
            assert reply.length_tokens == len(right[0][1])
        else:
            found += reply.log_likelihoods
            assert reply.lengths_tokens == tuple(len(one[1]) for one in right)
    rounding.check(found, plain, exact)
    assert predictor.scorer.picks_before_head
    padded = any((batch.source_mask == 0).any() for batch in prepared.batches)
    assert padded == (tokens_per_batch > 1), "only single questions are not padded"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sum_is_the_models_own_loss(build, rounding, family):
    """T5: over all labels. BART's labels begin with the BOS that its generation forces."""
    model, tokenizer = build("seq2seq", family)
    predictor = make_predictor("seq2seq", model, tokenizer)
    (reply,) = predictor.answer(predictor.prepare([REQUESTS[0]]))
    source = torch.tensor([tokenizer(REQUESTS[0].prompt)["input_ids"]])
    labels = torch.tensor([tokenizer(text_target="French")["input_ids"]])
    options = {"input_ids": source, "labels": labels}
    assert (labels[0, 0] == tokenizer.bos_token_id) == (family == "bart")
    if family == "bart":
        options["decoder_input_ids"] = torch.tensor([[2, *labels[0, :-1]]])
        labels[0, 0] = -100
    plain, exact = (one(**options).loss.item() for one in (model, rounding.exact(model)))
    rounding.check(-reply.log_likelihood / reply.length_tokens, plain, exact)


@pytest.mark.parametrize("tokens_per_batch", [1, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_that_of_generate(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("seq2seq", family)
    predictor = make_predictor("seq2seq", model, tokenizer, tokens_per_batch=tokens_per_batch)
    requests = [Generate(prompt, 5 + 2 * n, "film") for n, prompt in enumerate(PROMPTS)]
    before = len(predictor.start)
    first, twin = {}, rounding.exact(model)
    likelihoods = {"found": [], "plain": [], "exact": []}
    for some in (False, True):
        ends = {first[PROMPTS[1]][3], first[PROMPTS[3]][6]} if some else set()
        predictor.decoder.end_ids = frozenset(ends)
        found = predictor.answer(predictor.prepare(requests))
        for request, reply in zip(requests, found, strict=True):
            done = twin.generate(
                torch.tensor([tokenizer(request.prompt)["input_ids"]]),
                do_sample=False,
                max_new_tokens=request.max_new_tokens + before - 1,
                eos_token_id=sorted(ends) or None,
                forced_bos_token_id=0 if family == "bart" else None,
                output_logits=True,
                return_dict_in_generate=True,
            )
            for logits in done.logits[before - 1 :]:
                rounding.decided(logits[0])
            said = done.sequences[0].tolist()
            assert said[:before] == list(predictor.start)
            said = said[before:]
            first.setdefault(request.prompt, said)
            kept = said[:-1] if said[-1] in ends else said
            assert reply.text == tokenizer.decode(kept, skip_special_tokens=True)
            assert reply.length_tokens == len(said)
            total, labels = _plain(twin, tokenizer, request.prompt, "film")
            likelihoods["found"].append(reply.log_likelihood)
            likelihoods["plain"].append(_plain(model, tokenizer, request.prompt, "film")[0])
            likelihoods["exact"].append(total)
            assert reply.answer_tokens == len(labels)
    rounding.check(**likelihoods)
    assert len({reply.length_tokens for reply in found}) > 2


def test_a_source_is_encoded_once(build):
    model, tokenizer = build("seq2seq", "t5")
    predictor = make_predictor("seq2seq", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    seen = []
    handle = model.encoder.register_forward_hook(
        lambda _m, _a, options, _out: seen.append(len(options["input_ids"])), with_kwargs=True
    )
    predictor.answer(prepared)
    handle.remove()
    assert sum(seen) == len({request.prompt for request in REQUESTS})
    assert sum(len(batch.input_ids) for batch in prepared.batches) == 8


def test_the_same_in_any_order(build):
    predictor = make_predictor("seq2seq", *build("seq2seq", "bart"))
    requests = [*REQUESTS, *(Generate(prompt, 5, " film") for prompt in PROMPTS)]
    found = predictor.answer(predictor.prepare(requests))
    assert predictor.answer(predictor.prepare(requests[::-1])) == found[::-1]


def test_a_long_source_loses_its_right_end_and_keeps_its_end_token(build, caplog):
    model, tokenizer = build("seq2seq", "bart")
    predictor = make_predictor("seq2seq", model, tokenizer)
    long = "Paris is in France. " * 40
    prepared = predictor.prepare([Complete(long, "French")])
    assert prepared.truncated == 1
    assert "1 of 1 prompts were truncated" in caplog.text
    (batch,) = prepared.batches
    assert batch.source_ids[0].tolist() == [
        *tokenizer(long)["input_ids"][:47],
        tokenizer.eos_token_id,
    ]
    with pytest.raises(
        InputError, match=r"an answer of \d+ tokens does not fit into the model's 48"
    ):
        predictor.prepare([Complete("Paris", long)])


def test_a_class_is_refused(build):
    predictor = make_predictor("seq2seq", *build("seq2seq", "t5"))
    with pytest.raises(InputError, match="seq2seq head cannot answer Classify"):
        predictor.prepare([Classify("x")])
