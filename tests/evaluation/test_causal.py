"""Batched replies against a plain loop: one question at a time, all logits, float64 softmax.

Exact is the loop in float64; batches and padding may cost a few times what the same loop is off in
float32, see `rounding`. No rank and no choice changes, because none of these is near a tie.
"""

import random

import pytest
import torch

from search.evaluation.predictor import NonFiniteLogits, make_predictor
from tasks.base import Choose, Classify, Complete, Generate, Weigh
from tasks.errors import InputError

FAMILIES = ["gpt2", "llama", "gptj", "gemma2", "cohere", "granite", "opt"]
REQUESTS = [
    Complete("The mother tongue of Danielle Darrieux is", " French"),
    Complete("BBC One, by", " BBC"),
    Complete("BBC One is my favorite product out of everything owned by", " BBC"),
    Choose("Review: a fine film\nSentiment:", (" negative", " positive")),
    Choose("The profession of Arun Nehru is", (" politician", " French politician", " film")),
    Complete("Paris is in", " France. A longer text"),
    Complete("BBC One, by", " BBC"),
    Complete("is", " it"),
    Weigh((("Paris is in", " France"), ("The mother tongue of", " France"), ("is", " it is"))),
]


def _tokens(tokenizer, text):
    """Tokens of a text with what stands before it, without what a tokenizer puts behind it."""
    ids = tokenizer(text)["input_ids"]
    return ids[:-1] if ids[-1] == tokenizer.convert_tokens_to_ids("</s>") else ids


def _plain(model, tokenizer, prompt, answer, rounding=None):
    """(log-likelihood, first-choice tokens, answer's tokens, rank of the first).

    `rounding`: assert that it cannot change the tokens or the rank.
    """
    before, whole = _tokens(tokenizer, prompt), _tokens(tokenizer, prompt + answer)
    assert whole[: len(before)] == before
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([whole])).logits[0].double()
    logits = logits[len(before) - 1 : -1]
    answer_ids = whole[len(before) :]
    total = sum(logits[k].log_softmax(-1)[token].item() for k, token in enumerate(answer_ids))
    order = logits[0].argsort(descending=True, stable=True).tolist()
    if rounding:
        for place in logits:
            rounding.decided(place)
        rounding.decided(logits[0], answer_ids[0])
    return total, logits.argmax(-1).tolist(), answer_ids, order.index(answer_ids[0])


def _pairs(request):
    if isinstance(request, Weigh):
        return request.pairs
    answers = request.choices if isinstance(request, Choose) else [request.answer]
    return [(request.prompt, answer) for answer in answers]


def _check(model, tokenizer, requests, replies, rounding):
    twin = rounding.exact(model)
    found, plain, exact = [], [], []
    for request, reply in zip(requests, replies, strict=True):
        asked = None if isinstance(request, Choose) else rounding
        right = [_plain(twin, tokenizer, *pair, asked) for pair in _pairs(request)]
        plain += [_plain(model, tokenizer, *pair)[0] for pair in _pairs(request)]
        exact += [one[0] for one in right]
        if isinstance(request, Complete):
            ((_, said, answer, rank),) = right
            found.append(reply.log_likelihood)
            assert reply.rank == rank
            assert reply.greedy == (said == answer)
            assert reply.text == tokenizer.decode(said)
            assert reply.length_tokens == len(answer)
            continue
        found += reply.log_likelihoods
        assert reply.lengths_tokens == tuple(len(one[2]) for one in right)
        if isinstance(request, Weigh):
            assert reply.greedy == tuple(one[1] == one[2] for one in right)
    rounding.check(found, plain, exact)


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_equal_a_plain_loop(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("causal", family)
    predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=tokens_per_batch)
    prepared = predictor.prepare(REQUESTS)
    _check(model, tokenizer, REQUESTS, predictor.answer(prepared), rounding)
    assert predictor.scorer.picks_before_head
    padded = any((batch.attention_mask == 0).any() for batch in prepared.batches)
    assert padded == (tokens_per_batch > 1), "only single questions are not padded"


@pytest.mark.parametrize("family", FAMILIES)
def test_all_logits_give_the_same_where_picking_fails(build, rounding, family, monkeypatch):
    """A model whose head is not a module that is called once shows it when it is tried."""
    model, tokenizer = build("causal", family)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    predictor = make_predictor("causal", model, tokenizer)
    replies = predictor.answer(predictor.prepare(REQUESTS))
    assert not predictor.scorer.picks_before_head
    _check(model, tokenizer, REQUESTS, replies, rounding)


def test_only_scored_positions_reach_the_head(build):
    model, tokenizer = build("causal", "gpt2")
    predictor = make_predictor("causal", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    seen = []
    handle = model.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[:2]))
    predictor.answer(prepared)
    handle.remove()
    assert seen == [(1, prepared.slots)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_same_bits_from_run_to_run_and_in_any_order(build, family):
    model, tokenizer = build("causal", family)
    predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=40)
    first = predictor.answer(predictor.prepare(REQUESTS))
    assert predictor.answer(predictor.prepare(REQUESTS)) == first
    for seed in range(3):
        order = random.Random(seed).sample(range(len(REQUESTS)), len(REQUESTS))
        mixed = predictor.answer(predictor.prepare([REQUESTS[k] for k in order]))
        assert mixed == [first[k] for k in order]


def test_choices_of_one_token_and_equal_questions_share_a_row(build, rounding):
    model, tokenizer = build("causal", "gptj")
    predictor = make_predictor("causal", model, tokenizer)
    requests = [
        Choose("Review: dull\nSentiment:", (" negative", " positive")),
        Complete("Review: dull\nSentiment:", " negative"),
        Complete("Review:", " dull"),
    ]
    prepared = predictor.prepare(requests)
    assert sum(len(batch.input_ids) for batch in prepared.batches) == 1
    _check(model, tokenizer, requests, predictor.answer(prepared), rounding)


def test_a_model_that_says_nothing_says_no_token_more_than_another(build):
    """With a zeroed head all tokens are equally likely, as after a rank of zero."""
    model, tokenizer = build("causal", "gpt2", tie_word_embeddings=False)
    with torch.no_grad():
        kept = model.lm_head.weight.clone()
        model.lm_head.weight.zero_()
    predictor = make_predictor("causal", model, tokenizer)
    vocabulary = model.config.vocab_size
    first = tokenizer.decode([0])
    asked = [Complete("Paris is in", text) for text in (first, " French")]
    longer = Choose("Paris is in", (" film", " French politician", " film of a longer text"))
    replies = predictor.answer(predictor.prepare([*asked, longer, Generate("Paris", 3, first)]))
    model.lm_head.weight.data.copy_(kept)
    for reply in replies[:2]:
        assert (reply.rank, reply.rank_tied, reply.tied) == (0, vocabulary, vocabulary)
        assert reply.greedy == pytest.approx(float(vocabulary) ** -reply.length_tokens)
    assert replies[2].flat
    assert replies[3].tied == vocabulary
    assert replies[3].mean(lambda text: 1.0) <= 1 / vocabulary


def test_an_empty_prompt_starts_from_bos(build, rounding):
    model, tokenizer = build("causal", "gpt2")
    predictor = make_predictor("causal", model, tokenizer)
    (reply,) = predictor.answer(predictor.prepare([Complete("", "Paris")]))
    plain, exact = (
        _plain(m, tokenizer, "<|endoftext|>", "Paris")[0] for m in (model, rounding.exact(model))
    )
    rounding.check(reply.log_likelihood, plain, exact)


def test_a_long_prompt_loses_its_left_end_and_is_counted(build, rounding, caplog):
    model, tokenizer = build("causal", "llama")
    predictor = make_predictor("causal", model, tokenizer)
    assert predictor.limit_tokens == 48
    long = "Paris is in France. " * 40 + "Paris is in"
    requests = [Complete(long, " France is"), Complete("Paris is in", " France")]
    prepared = predictor.prepare(requests)
    assert prepared.truncated == 1
    assert "1 of 2 prompts were truncated" in caplog.text
    assert max(batch.input_ids.shape[1] for batch in prepared.batches) == 48
    (reply, _) = predictor.answer(prepared)
    bos, *prompt = tokenizer(long)["input_ids"]
    answer = tokenizer(" France is", add_special_tokens=False)["input_ids"]
    ids = [bos, *prompt[-(48 - 1 - len(answer) + 1) :], *answer[:-1]]
    totals = []
    for one in (model, rounding.exact(model)):
        with torch.inference_mode():
            table = one(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        places = range(48 - len(answer), 48)
        totals.append(sum(table[p, t].item() for p, t in zip(places, answer, strict=True)))
    rounding.check(reply.log_likelihood, *totals)


@pytest.mark.parametrize(("head", "family"), [("causal", "llama"), ("seq2seq", "bart")])
def test_what_is_cut_is_counted_once_for_each_question(build, head, family):
    """However many choices follow the prompt, and whether it is continued too."""
    predictor = make_predictor(head, *build(head, family))
    long = "Paris is in France. " * 40
    requests = [
        Choose(long + "Paris is", (" film", " fine", " dull")),
        Generate(long + "Rome is", 4, " film"),
        Choose(long + "Paris is", (" dull", " film")),  # the same prompt is another question
        Choose("Paris is", (" film", " fine")),
    ]
    assert predictor.prepare(requests).truncated == 3


def test_an_answer_that_fills_the_model_is_refused(build):
    model, tokenizer = build("causal", "gpt2")
    predictor = make_predictor("causal", model, tokenizer)
    with pytest.raises(InputError, match="leaves no room for its prompt"):
        predictor.prepare([Complete("Paris", " is in France" * 40)])


def test_answers_that_the_tokenizer_cannot_write_are_counted(build, caplog):
    predictor = make_predictor("causal", *build("causal", "gptj"))
    requests = [Complete("Paris is in", " Ruritania"), Complete("Paris is in", " France")]
    assert predictor.prepare(requests).unknown == 1
    assert "1 of 2 answers contain words that the tokenizer does not know" in caplog.text


def test_no_questions_no_replies(build):
    predictor = make_predictor("causal", *build("causal", "gpt2"))
    assert predictor.answer(predictor.prepare([])) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_reported(build, rounding, value):
    model, tokenizer = build("causal", "gptj")
    predictor = make_predictor("causal", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    weight = model.transformer.h[1].mlp.fc_out.weight
    kept = weight[0, 0].item()
    weight.data[0, 0] = value
    with pytest.raises(NonFiniteLogits, match="scored tokens have no finite"):
        predictor.answer(prepared)
    weight.data[0, 0] = kept
    _check(model, tokenizer, REQUESTS, predictor.answer(prepared), rounding)


def test_half_precision_is_normalised_in_float32(build):
    """The log-probabilities of a bfloat16 model's logits, not their bfloat16 rounding."""
    model, tokenizer = build("causal", "gpt2")
    kept = {name: p.clone() for name, p in model.state_dict().items()}
    model.to(torch.bfloat16)
    try:
        predictor = make_predictor("causal", model, tokenizer)
        (reply,) = predictor.answer(predictor.prepare([REQUESTS[0]]))
        total, *_ = _plain(model, tokenizer, REQUESTS[0].prompt, REQUESTS[0].answer)
    finally:
        model.to(torch.float32)
        model.load_state_dict(kept)
    assert predictor.scorer.picks_before_head
    assert reply.log_likelihood == pytest.approx(total, rel=2e-2)
    assert reply.log_likelihood != torch.tensor(reply.log_likelihood).bfloat16().item()


def test_dropout_is_off(build):
    model, tokenizer = build("causal", "gpt2", attn_pdrop=0.5, resid_pdrop=0.5)
    model.train()
    predictor = make_predictor("causal", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    assert predictor.answer(prepared) == predictor.answer(prepared)


def test_a_question_for_another_head_is_refused(build):
    predictor = make_predictor("causal", *build("causal", "gpt2"))
    with pytest.raises(InputError, match="causal head cannot answer Classify"):
        predictor.prepare([Classify("x")])


def test_an_unknown_head_is_refused(build):
    with pytest.raises(InputError, match="'regression' does not exist"):
        make_predictor("regression", *build("causal", "gpt2"))


def test_choices_with_the_same_tokens_are_refused_or_counted(build, caplog):
    """WordPiece lower-cases, so that no model behind it can tell Paris from PARIS."""
    model, tokenizer = build("masked", "bert")
    predictor = make_predictor("masked", model, tokenizer)
    alike = Choose("It is [MASK].", (" Paris", " PARIS"))
    with pytest.raises(InputError, match="' Paris' and ' PARIS' the same tokens"):
        predictor.prepare([alike, alike])
    prepared = predictor.prepare([alike, Choose("It is [MASK].", (" Paris", " French"))])
    assert prepared.alike == 1
    assert "1 of 2 questions have choices" in caplog.text
