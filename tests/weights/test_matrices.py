import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from search.cuts.refs import MatrixRef
from search.weights.matrices import find_matrices

GPT2 = dict(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=32)
LLAMA = dict(
    vocab_size=48,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=56,
)


def causal(model_type, **kwargs):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **kwargs)).eval()


def by_ref(model):
    return {str(matrix.ref): matrix for matrix in find_matrices(model)}


def test_addresses_are_sorted_distinct_and_parse_back():
    matrices = find_matrices(causal("gpt2", **GPT2))
    refs = [matrix.ref for matrix in matrices]
    assert refs == sorted(refs)
    assert len(set(refs)) == len(refs) == 12
    assert [MatrixRef.parse(str(ref)) for ref in refs] == refs


def test_conv1d_is_read_as_out_by_in():
    model = causal("gpt2", **GPT2)
    matrix = by_ref(model)["1.fc_in"]
    stored = model.get_parameter("transformer.h.1.mlp.c_fc.weight")
    assert matrix.shape == (128, 32)
    assert torch.equal(matrix.read(stored), stored.T)


def test_fused_query_key_value_of_gpt2_are_thirds():
    model = causal("gpt2", **GPT2)
    stored = model.get_parameter("transformer.h.0.attn.c_attn.weight")
    for kind, third in zip(("q", "k", "v"), stored.detach().split(32, dim=1), strict=True):
        assert torch.equal(by_ref(model)[f"0.{kind}_proj"].read(stored), third.T)


def test_meta_model_lists_the_same_matrices():
    config = AutoConfig.for_model("llama", **LLAMA)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    assert find_matrices(empty) == find_matrices(causal("llama", **LLAMA))


def test_bert_types():
    config = AutoConfig.for_model(
        "bert", **{k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    )
    found = by_ref(AutoModelForMaskedLM.from_config(config))
    assert found["0.out_proj"].module == "bert.encoder.layer.0.attention.output.dense"
    assert found["1.fc_in"].shape == (56, 32)
    assert found["1.fc_out"].module == "bert.encoder.layer.1.output.dense"


@pytest.mark.parametrize("name", ["0.q_proj", "1.fc_in", "0.out_proj"])
def test_write_changes_exactly_its_rows(name):
    model = causal("gpt2", **GPT2)
    matrices = by_ref(model)
    matrix = matrices[name]
    stored = model.get_parameter(matrix.parameter)
    before = {n: m.read(model.get_parameter(m.parameter)) for n, m in matrices.items()}
    value = torch.randn(matrix.shape)
    matrix.write(stored, value)
    for other, m in matrices.items():
        expected = value if other == name else before[other]
        assert torch.equal(m.read(model.get_parameter(m.parameter)), expected)
