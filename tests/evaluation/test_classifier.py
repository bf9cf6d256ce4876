"""Classification in batches against one text at a time, in float64; see `rounding`."""

import random

import pytest
import torch

from search.evaluation.predictor import NonFiniteLogits, make_predictor
from tasks.base import Classified, Classify, Complete
from tasks.errors import InputError

FAMILIES = ["bert", "roberta", "distilbert", "gpt2", "llama", "gptj"]
REQUESTS = [
    Classify("a fine film"),
    Classify("dull"),
    Classify("The mother tongue of Danielle Darrieux is French", "Paris is in France."),
    Classify("dull", "fine"),
    Classify("a fine film"),
    Classify("Question: is it (Rome) or 12 or foobar? Answer: yes."),
]


def _plain(model, tokenizer, request):
    encoded = tokenizer(request.text, request.text_pair, return_tensors="pt")
    inputs = {"input_ids": encoded["input_ids"]}
    if "token_type_ids" in encoded and model.config.model_type in ("bert", "roberta"):
        inputs["token_type_ids"] = encoded["token_type_ids"]
    with torch.inference_mode():
        return model(**inputs).logits[0].double().log_softmax(-1).tolist()


def _check(model, tokenizer, requests, replies, rounding):
    found = [value for reply in replies for value in reply.log_probabilities]
    plain, exact = (
        [value for request in requests for value in _plain(one, tokenizer, request)]
        for one in (model, rounding.exact(model))
    )
    rounding.check(found, plain, exact)


@pytest.mark.parametrize("tokens_per_batch", [1, 30, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_equal_a_plain_loop(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("classifier", family, num_labels=3)
    predictor = make_predictor("classifier", model, tokenizer, tokens_per_batch=tokens_per_batch)
    before = model.config.pad_token_id
    prepared = predictor.prepare(REQUESTS)
    replies = predictor.answer(prepared)
    assert model.config.pad_token_id == before
    assert prepared.truncated == 0
    spread = set()
    _check(model, tokenizer, REQUESTS, replies, rounding)
    for reply in replies:
        assert isinstance(reply, Classified)
        assert reply.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        spread.add(round(reply.log_probabilities[0], 5))
    assert len(spread) == 5
    assert sum(len(batch.input_ids) for batch in prepared.batches) == 5


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_same_bits_from_run_to_run_and_in_any_order(build, family):
    predictor = make_predictor("classifier", *build("classifier", family), tokens_per_batch=30)
    first = predictor.answer(predictor.prepare(REQUESTS))
    assert predictor.answer(predictor.prepare(REQUESTS)) == first
    for seed in range(3):
        order = random.Random(seed).sample(range(len(REQUESTS)), len(REQUESTS))
        mixed = predictor.answer(predictor.prepare([REQUESTS[k] for k in order]))
        assert mixed == [first[k] for k in order]


def test_padding_of_a_causal_backbone_ends_no_text(build, rounding):
    """Token 0 is what any would pad with; here it ends a text, where it is no padding."""
    model, tokenizer = build("classifier", "gpt2")
    requests = [Classify("a fine film<|endoftext|>"), Classify("The mother tongue of Arun Nehru")]
    predictor = make_predictor("classifier", model, tokenizer)
    prepared = predictor.prepare(requests)
    assert prepared.pad_id != 0
    _check(model, tokenizer, requests, predictor.answer(prepared), rounding)


@pytest.mark.parametrize("family", FAMILIES)
def test_long_texts_are_cut_on_the_right_and_counted(build, rounding, family, caplog):
    model, tokenizer = build("classifier", family)
    predictor = make_predictor("classifier", model, tokenizer)
    long = Classify("Paris is in France. " * 40)
    prepared = predictor.prepare([long, Classify("dull"), Classify(long.text, "dull")])
    assert prepared.truncated == 2
    assert "2 of 3 texts were truncated" in caplog.text
    limit = 32 if family in ("bert", "roberta", "distilbert") else 48
    assert max(batch.input_ids.shape[1] for batch in prepared.batches) == limit
    (reply, *_) = predictor.answer(prepared)
    kept = tokenizer(long.text, truncation=True, max_length=limit, return_tensors="pt")
    with torch.inference_mode():
        plain, exact = (
            one(input_ids=kept["input_ids"]).logits[0].double().log_softmax(-1)
            for one in (model, rounding.exact(model))
        )
    rounding.check(reply.log_probabilities, plain, exact)


def test_labels_carry_the_models_names(build):
    model, tokenizer = build("classifier", "bert", id2label={0: "POSITIVE", 1: "NEGATIVE"})
    predictor = make_predictor("classifier", model, tokenizer)
    (reply,) = predictor.answer(predictor.prepare([Classify("dull")]))
    assert reply.labels == ("POSITIVE", "NEGATIVE")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 1},
        {"num_labels": 2, "problem_type": "regression"},
        {"num_labels": 2, "problem_type": "multi_label_classification"},
    ],
)
def test_heads_that_do_not_classify_are_refused(build, changes):
    with pytest.raises(InputError, match="two or more classes"):
        make_predictor("classifier", *build("classifier", "bert", **changes))


def test_broken_weights_are_reported(build):
    model, tokenizer = build("classifier", "bert")
    predictor = make_predictor("classifier", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    kept = model.classifier.weight[0, 0].item()
    model.classifier.weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteLogits, match="6 of 6 texts"):
        predictor.answer(prepared)
    model.classifier.weight.data[0, 0] = kept


def test_questions_for_other_heads_and_empty_texts_are_refused(build):
    predictor = make_predictor("classifier", *build("classifier", "gpt2"))
    with pytest.raises(InputError, match="classifier head cannot answer Complete"):
        predictor.prepare([Complete("a", " b")])
    with pytest.raises(InputError, match="text '' has no tokens"):
        predictor.prepare([Classify("")])
    assert predictor.answer(predictor.prepare([])) == []
