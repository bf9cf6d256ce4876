"""Greedy decoding against `generate(do_sample=False)` in float64, one prompt at a time.

Padding and batches move the last bits of float32 logits, so a token may differ where the two best
are that close; that none of these is, is asserted of the exact logits.
"""

import pytest
import torch

from search.evaluation.generation import Prompt, pack_prompts
from search.evaluation.predictor import NonFiniteLogits, make_predictor
from search.reuse.batching import Budget
from tasks.base import Complete, Generate
from tasks.errors import InputError

FAMILIES = ["gpt2", "llama", "gptj", "gemma2", "cohere", "granite", "opt"]
PROMPTS = [
    "The mother tongue of Danielle Darrieux is",
    "BBC One, by",
    "BBC One is my favorite",
    "Review: a fine film\nSentiment:",
    "is",
    "Paris is in",
]
REQUESTS = [Generate(prompt, 4 + 3 * n) for n, prompt in enumerate(PROMPTS)]


def _plain(model, tokenizer, request, ends, rounding=None):
    """Text and new tokens of transformers' own greedy search.

    `rounding`: assert that it cannot change a token.
    """
    ids = tokenizer(request.prompt)["input_ids"]
    ids = ids[:-1] if ids[-1] == tokenizer.convert_tokens_to_ids("</s>") else ids
    done = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    said = done.sequences[0, len(ids) :].tolist()
    for logits in done.logits if rounding else ():
        rounding.decided(logits[0])
    kept = said[:-1] if said and said[-1] in ends else said
    return tokenizer.decode(kept, skip_special_tokens=True), said


def _predictor(model, tokenizer, ends, **options):
    predictor = make_predictor("causal", model, tokenizer, **options)
    predictor.decoder.end_ids = frozenset(ends)
    return predictor


def _ends(model, tokenizer):
    """Tokens that the model says early in some texts and not in others, so that rows end apart."""
    said = [_plain(model, tokenizer, request, ())[1] for request in REQUESTS]
    return {said[1][2], said[2][5]}


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_that_of_generate(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("causal", family)
    twin = rounding.exact(model)
    ends = _ends(twin, tokenizer)
    for these in ((), ends):
        predictor = _predictor(model, tokenizer, these, tokens_per_batch=tokens_per_batch)
        prepared = predictor.prepare(REQUESTS)
        expected = [_plain(twin, tokenizer, request, these, rounding) for request in REQUESTS]
        found = predictor.answer(prepared)
        assert [(r.text, r.length_tokens) for r in found] == [(t, len(i)) for t, i in expected]
    assert len({len(ids) for _, ids in expected}) > 2
    padded = any((batch.attention_mask == 0).any() for batch in prepared.prompts)
    assert padded == (tokens_per_batch > 1), "only single prompts are not padded"


def test_rows_leave_the_batch_when_half_have_ended(build):
    model, tokenizer = build("causal", "llama")
    widths = []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, options: widths.append(options["input_ids"].shape), with_kwargs=True
    )
    predictor = _predictor(model, tokenizer, ())
    prompts = [*["BBC One, by", "Paris is in", "is it"] * 2, "The profession of Arun Nehru"]
    requests = [Generate(p, n) for p, n in zip(prompts, [2, 2, 3, 9, 9, 9, 2], strict=True)]
    prepared = predictor.prepare(requests)
    predictor.answer(prepared)
    handle.remove()
    steps = [shape for shape in widths if shape[1] == 1]
    assert sum(rows for rows, _ in steps) < sum(
        len(batch.prompts) * (max(prompt.max_new_tokens for prompt in batch.prompts) - 1)
        for batch in prepared.prompts
    )


def test_padding_is_paid_where_it_saves_a_batch_and_so_a_pass_for_every_token():
    prompts = [Prompt(tuple(range(3, 3 + n)), 4, (), (), (n,)) for n in range(1, 31)]
    budget = Budget(10_000, 1_000, 8)
    packed = pack_prompts(prompts, budget, 0, torch.device("cpu"), left=True)
    padding = [int((batch.attention_mask == 0).sum()) for batch in packed]
    assert max(padding) <= 4 * 8 < 2 * min(padding[:-1])
    assert [len(batch.prompts) for batch in packed] == [8, 8, 8, 6]


def test_the_prompt_is_never_part_of_the_text(build):
    model, tokenizer = build("causal", "gpt2")
    predictor = _predictor(model, tokenizer, ())
    (reply,) = predictor.answer(predictor.prepare([Generate(PROMPTS[0], 5)]))
    assert PROMPTS[0] not in reply.text
    _, ids = _plain(model, tokenizer, Generate(PROMPTS[0], 5), ())
    assert reply.text == tokenizer.decode(ids)


def test_a_text_ends_before_its_stop_and_no_further_step_is_paid(build):
    model, tokenizer = build("causal", "gpt2")
    predictor = _predictor(model, tokenizer, ())
    whole = predictor.answer(predictor.prepare([Generate(PROMPTS[0], 12)]))[0].text
    stop = whole[4:6]
    (reply,) = predictor.answer(predictor.prepare([Generate(PROMPTS[0], 12, stop=(stop,))]))
    assert reply.text == whole[: whole.index(stop)]
    assert reply.length_tokens < 12


def test_decoding_ends_once_the_answer_is_decided(build):
    """A word of the text is an answer only once something stands behind it."""
    model, tokenizer = build("causal", "gptj")
    predictor = _predictor(model, tokenizer, ())
    whole = predictor.answer(predictor.prepare([Generate(PROMPTS[4], 12)]))[0].text
    word = whole.split()[2]
    (reply,) = predictor.answer(predictor.prepare([Generate(PROMPTS[4], 12, enough=(word,))]))
    assert whole.startswith(reply.text)
    assert word in reply.text.split()
    assert reply.length_tokens < 12
    assert not reply.text.endswith(word)


def test_equal_prompts_are_decoded_once_and_order_does_not_matter(build):
    model, tokenizer = build("causal", "llama")
    predictor = _predictor(model, tokenizer, ())
    requests = [*REQUESTS, REQUESTS[2], Generate(PROMPTS[2], 3)]
    prepared = predictor.prepare(requests)
    assert sum(len(batch.prompts) for batch in prepared.prompts) == len(REQUESTS) + 1
    found = predictor.answer(prepared)
    assert found[-2] == found[2]
    assert predictor.answer(predictor.prepare(requests[::-1])) == found[::-1]


def test_the_answers_log_likelihood_comes_along(build):
    model, tokenizer = build("causal", "llama")
    predictor = _predictor(model, tokenizer, ())
    requests = [Generate(PROMPTS[0], 3, answer=" French is"), Complete(PROMPTS[0], " French is")]
    said, completed = predictor.answer(predictor.prepare(requests))
    assert said.log_likelihood == completed.log_likelihood < 0
    assert said.answer_tokens == completed.length_tokens
    (bare,) = predictor.answer(predictor.prepare([Generate(PROMPTS[0], 3)]))
    assert (bare.text, bare.log_likelihood, bare.answer_tokens) == (said.text, 0.0, 0)


@pytest.mark.parametrize("kind", ["byte-level", "unigram", "wordlevel"])
def test_a_space_at_the_end_belongs_to_the_next_word(build, kind):
    family = {"byte-level": "gpt2", "unigram": "llama", "wordlevel": "gptj"}[kind]
    model, tokenizer = build("causal", family)
    predictor = _predictor(model, tokenizer, ())
    plain, spaced = predictor.answer(
        predictor.prepare([Generate("Paris is in", 6), Generate("Paris is in ", 6)])
    )
    assert plain == spaced


def test_a_long_prompt_leaves_room_for_what_is_generated(build, caplog):
    model, tokenizer = build("causal", "llama")
    predictor = _predictor(model, tokenizer, ())
    prepared = predictor.prepare([Generate("Paris is in France. " * 40, 10)])
    assert prepared.truncated == 1
    assert "1 of 1 prompts were truncated" in caplog.text
    (batch,) = prepared.prompts
    assert batch.input_ids.shape == (1, 48 - 9)
    assert batch.input_ids[0, 0] == tokenizer.bos_token_id
    assert predictor.answer(prepared)[0].length_tokens == 10
    with pytest.raises(InputError, match="a continuation of 60 tokens leaves no room"):
        predictor.prepare([Generate("Paris", 60)])


def test_broken_weights_are_reported(build):
    model, tokenizer = build("causal", "gptj")
    predictor = make_predictor("causal", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    weight = model.transformer.h[1].mlp.fc_out.weight
    kept = weight[0, 0].item()
    weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteLogits, match="no single most likely next token"):
        predictor.answer(prepared)
    weight.data[0, 0] = kept


@pytest.mark.parametrize("head", ["masked", "classifier"])
def test_heads_that_do_not_generate_refuse_by_name(build, head):
    predictor = make_predictor(head, *build(head, "bert"))
    with pytest.raises(InputError, match=f"a {head} head cannot answer Generate"):
        predictor.prepare(REQUESTS)


@pytest.mark.parametrize("tokens_per_batch", [1, 8192])
def test_tokens_that_tie_are_all_followed(build, tokens_per_batch):
    """Two tokens with one row of the head tie: what either leads to has half of the weight."""
    model, tokenizer = build("causal", "gpt2", tie_word_embeddings=False)
    request = Generate("Paris is in", 2)
    own = _plain(model, tokenizer, request, ())[1]
    twin = next(n for n in range(60, 400) if n not in own)
    weight = model.lm_head.weight
    kept = weight[twin].clone()
    weight.data[twin] = weight[own[0]]
    ids = [*tokenizer(request.prompt)["input_ids"], twin]
    with torch.inference_mode():
        after = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    predictor = _predictor(model, tokenizer, (), tokens_per_batch=tokens_per_batch)
    asked = [Generate("The Frenchman film of", 5), request, Generate("is", 7)]
    reply = predictor.answer(predictor.prepare(asked))[1]
    alone = predictor.answer(predictor.prepare([request]))[0]
    weight.data[twin] = kept
    assert reply == alone
    assert reply.tied == 2
    assert {text for text, _ in reply.texts} >= {
        tokenizer.decode([twin, after]),
        tokenizer.decode(own),
    }
    assert reply.mean(lambda text: 1.0) == pytest.approx(1.0)
    assert reply.mean(
        lambda text: float(text.startswith(tokenizer.decode([twin])))
    ) == pytest.approx(0.5)


def test_what_ties_without_end_is_no_text_of_many(build):
    model, tokenizer = build("causal", "gpt2", tie_word_embeddings=False)
    kept = model.lm_head.weight.clone()
    model.lm_head.weight.data.zero_()
    predictor = _predictor(model, tokenizer, ())
    (reply,) = predictor.answer(predictor.prepare([Generate("Paris is in", 4)]))
    model.lm_head.weight.data.copy_(kept)
    vocabulary = model.config.vocab_size
    assert (reply.tied, len(reply.texts), reply.length_tokens) == (vocabulary, 1, 4)
    assert reply.mean(lambda text: 1.0) == pytest.approx(float(vocabulary) ** -4)
