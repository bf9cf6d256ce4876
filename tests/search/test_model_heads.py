"""Heads of checkpoints by what they were saved as."""

import json

import pytest
import transformers

from search.model import ModelSource, find_head
from tasks.errors import InputError


@pytest.mark.parametrize(
    ("name", "encoder_decoder", "head"),
    [
        ("T5ForConditionalGeneration", True, "seq2seq"),
        ("T5WithLMHeadModel", True, "seq2seq"),
        ("MarianMTModel", True, "seq2seq"),
        ("BartForSequenceClassification", True, "classifier"),
        ("GPT2LMHeadModel", False, "causal"),
        ("LlamaForCausalLM", False, "causal"),
        ("RobertaForMaskedLM", False, "masked"),
    ],
)
def test_the_head_of_an_architecture(name, encoder_decoder, head):
    assert find_head([name], "here", encoder_decoder=encoder_decoder) == head


@pytest.mark.parametrize(
    ("name", "encoder_decoder"),
    [("Gemma3ForConditionalGeneration", False), ("T5Model", True), ("BertModel", False)],
)
def test_what_has_no_head_of_ours_is_refused(name, encoder_decoder):
    with pytest.raises(InputError, match=f"{name}, which has none of the heads .*seq2seq"):
        find_head([name], "here", encoder_decoder=encoder_decoder)


@pytest.fixture
def t5(tmp_path):
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=30
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_an_encoder_decoder_is_found_built_and_loaded(t5):
    source = ModelSource(t5)
    assert source.head == "seq2seq"
    skeleton, model = source.skeleton(), source.load()
    assert type(model) is type(skeleton) is transformers.T5ForConditionalGeneration
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def test_a_chat_template_for_an_encoder_decoder_is_refused_before_it_loads(t5):
    source = ModelSource(t5, chat_template=True)
    with pytest.raises(InputError, match="has a seq2seq head, which takes no messages"):
        _ = source.head


def test_an_old_checkpoint_without_the_flag_is_not_taken_for_one(tmp_path):
    config = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="none of the heads"):
        _ = ModelSource(str(tmp_path)).head
