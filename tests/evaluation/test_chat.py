"""Chat templates: what the model reads is what `apply_chat_template` gives, and no second BOS."""

import copy

import pytest

from search.evaluation.predictor import make_predictor
from tasks.base import Choose, Complete, Generate, TokenNll
from tasks.errors import InputError

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:\n{% endif %}"
)
BARE = TEMPLATE.replace("{{ bos_token }}", "")


def _chatty(build, family, template=TEMPLATE):
    model, tokenizer = build("causal", family)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return model, tokenizer


def _ids(tokenizer, question):
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True
    )
    return tuple(encoded["input_ids"])


@pytest.mark.parametrize("template", [TEMPLATE, BARE])
@pytest.mark.parametrize("family", ["gpt2", "llama", "cohere"])
def test_the_model_reads_the_template_and_its_bos_once(build, family, template):
    """gpt2 adds no BOS, llama one, cohere one and an end; the template alone decides."""
    model, tokenizer = _chatty(build, family, template)
    predictor = make_predictor("causal", model, tokenizer, chat=True)
    prepared = predictor.prepare([Generate("is it Rome", 4, answer=" yes")])
    expected = _ids(tokenizer, "is it Rome")
    assert (expected[0] == tokenizer.bos_token_id) == (template is TEMPLATE)
    assert prepared.prompts[0].prompts[0].ids == expected
    (batch,) = prepared.batches
    assert tuple(batch.input_ids[0, : len(expected)].tolist()) == expected


def test_an_answer_begins_the_message_without_a_space(build):
    model, tokenizer = _chatty(build, "gpt2")
    predictor = make_predictor("causal", model, tokenizer, chat=True)
    requests = [
        Complete("is it", " yes"),
        Choose("is it", (" yes", " film")),
        Generate("a", 2, " b"),
    ]
    prepared = predictor.prepare(requests)
    targets = {int(t) for batch in prepared.batches for t in batch.targets}
    bare = {t for text in ("yes", "film", "b") for t in tokenizer(text)["input_ids"]}
    assert targets == bare
    assert not bare & {tokenizer(text)["input_ids"][0] for text in (" yes", " film", " b")}


def test_without_the_option_a_template_is_not_used(build):
    model, tokenizer = _chatty(build, "llama")
    plain = make_predictor("causal", model, build("causal", "llama")[1])
    templated = make_predictor("causal", model, tokenizer)
    requests = [Complete("Paris is in", " France")]
    assert templated.answer(templated.prepare(requests)) == plain.answer(plain.prepare(requests))


def test_a_whole_text_is_no_message(build):
    model, tokenizer = _chatty(build, "llama")
    plain, chat = (make_predictor("causal", model, tokenizer, chat=chat) for chat in (False, True))
    requests = [TokenNll("Paris is in France")]
    assert chat.answer(chat.prepare(requests)) == plain.answer(plain.prepare(requests))


def test_a_tokenizer_without_template_and_another_head_are_refused(build):
    with pytest.raises(InputError, match="no chat template"):
        make_predictor("causal", *build("causal", "gpt2"), chat=True)
    with pytest.raises(InputError, match="a seq2seq head takes no messages"):
        make_predictor("seq2seq", *build("seq2seq", "t5"), chat=True)
