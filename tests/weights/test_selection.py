import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from search.weights.matrices import find_matrices
from search.weights.selection import expand, laser_triple
from tasks.errors import InputError

SIZES = dict(
    vocab_size=48,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=56,
)


def matrices(auto, model_type, **kwargs):
    with torch.device("meta"):
        return find_matrices(auto.from_config(AutoConfig.for_model(model_type, **kwargs)))


def names(pattern, found):
    return [str(ref) for ref in expand(pattern, found)]


@pytest.fixture(scope="module")
def llama():
    return matrices(AutoModelForCausalLM, "llama", **SIZES)


@pytest.fixture(scope="module")
def mixtral():
    return matrices(AutoModelForCausalLM, "mixtral", **SIZES, num_local_experts=2)


@pytest.fixture(scope="module")
def bart():
    sizes = dict(encoder_layers=2, decoder_layers=2, encoder_ffn_dim=56, decoder_ffn_dim=56)
    heads = dict(encoder_attention_heads=4, decoder_attention_heads=4)
    return matrices(AutoModelForSeq2SeqLM, "bart", vocab_size=48, d_model=32, **sizes, **heads)


def test_layers_types_and_groups(llama):
    assert names("1.fc_in", llama) == ["1.fc_in"]
    assert names("*.fc_out", llama) == ["0.fc_out", "1.fc_out", "2.fc_out"]
    assert names("2.attn", llama) == [f"2.{kind}_proj" for kind in ("q", "k", "v", "out")]
    assert names("0.mlp", llama) == ["0.fc_in", "0.fc_up", "0.fc_out"]
    assert len(names("*.all", llama)) == len(names("*.*", llama)) == len(llama) == 21


def test_experts_and_routers(mixtral):
    assert names("0.experts.1.fc_in", mixtral) == ["0.experts.1.fc_in"]
    assert names("1.experts.*.fc_out", mixtral) == ["1.experts.0.fc_out", "1.experts.1.fc_out"]
    assert len(names("0.mlp", mixtral)) == 6
    assert names("0.mlp.gate", mixtral) == ["0.mlp.gate"]
    assert "0.mlp.gate" not in names("0.all", mixtral)
    with pytest.raises(InputError, match="matches no matrix"):
        names("0.fc_in", mixtral)


def test_stacks_and_cross_attention(bart):
    assert names("decoder.1.cross.q_proj", bart) == ["decoder.1.cross.q_proj"]
    assert names("*.fc_in", bart) == [
        f"{s}.{i}.fc_in" for s in ("decoder", "encoder") for i in (0, 1)
    ]
    assert len(names("decoder.0.attn", bart)) == len(names("decoder.0.cross.attn", bart)) == 4
    assert len(names("decoder.0.all", bart)) == 10
    with pytest.raises(InputError, match=r"did you mean 'encoder.1.fc_in'|'decoder.1.fc_in'"):
        names("1.fc_in", bart)


@pytest.mark.parametrize("pattern", ["7.fc_in", "fc_in", "*.", "*.nothing", "1.2.fc_in", ""])
def test_patterns_without_a_matrix_are_refused(pattern, llama):
    with pytest.raises(InputError, match="matches no matrix"):
        expand(pattern, llama)


def reference_rank(full, rate):
    """The arithmetic of LASER's do_low_rank, called with (10 - rate) * 0.1."""
    k = (10 - rate) * 0.1
    return int(full * k)


FAMILIES = {
    "gptj": (
        AutoModelForCausalLM,
        dict(vocab_size=48, n_embd=32, n_layer=3, n_head=4, rotary_dim=4),
        {
            "fc_in": "transformer.h.2.mlp.fc_in.weight",
            "k_proj": "transformer.h.2.attn.k_proj.weight",
        },
    ),
    "llama": (
        AutoModelForCausalLM,
        SIZES,
        {
            "fc_in": "model.layers.2.mlp.gate_proj.weight",
            "fc_up": "model.layers.2.mlp.up_proj.weight",
            "fc_out": "model.layers.2.mlp.down_proj.weight",
            "out_proj": "model.layers.2.self_attn.o_proj.weight",
        },
    ),
    "roberta": (
        AutoModel,
        SIZES,
        {
            "fc_in": "encoder.layer.2.intermediate.dense.weight",
            "fc_out": "encoder.layer.2.output.dense.weight",
            "out_proj": "encoder.layer.2.attention.output.dense.weight",
            "q_proj": "encoder.layer.2.attention.self.query.weight",
        },
    ),
    "phi": (
        AutoModelForCausalLM,
        SIZES,
        {
            "fc_in": "model.layers.2.mlp.fc1.weight",
            "out_proj": "model.layers.2.self_attn.dense.weight",
        },
    ),
    "decision_transformer": (
        AutoModel,
        dict(hidden_size=32, n_layer=3, n_head=4, state_dim=3, act_dim=2),
        {
            "k_proj": "encoder.h.2.attn.c_attn.weight",
            "out_proj": "encoder.h.2.attn.c_proj.weight",
            "fc_in": "encoder.h.2.mlp.c_fc.weight",
        },
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rate", [0, 1, 2, 4, 6, 8, 9, 9.5, 9.9, 9.95, 10])
def test_lasers_triples_mean_the_same_matrices_and_ranks(family, rate):
    auto, config, expected = FAMILIES[family]
    found = matrices(auto, family, **config)
    parameters = {matrix.ref: matrix.parameter for matrix in found}
    for lname, parameter in expected.items():
        (intervention,) = laser_triple(lname, 2, rate, found).interventions
        assert parameters[intervention.matrix] == parameter
        assert intervention.rule.rank(32) == reference_rank(32, rate)
    groups = {"attn": 4, "mlp": 3 if family == "llama" else 2}
    for lname, count in groups.items():
        assert len(laser_triple(lname, 0, rate, found).interventions) == count
        assert len(laser_triple(lname, -1, rate, found).interventions) == 3 * count
    assert laser_triple("dont", 2, rate, found).interventions == ()


def test_bad_triples_are_refused(llama):
    for lname, lnum, rate in [
        ("fc_inn", 1, 1),
        ("fc_in", 9, 1),
        ("fc_in", -2, 1),
        ("fc_in", 1, 11),
    ]:
        with pytest.raises(InputError):
            laser_triple(lname, lnum, rate, llama)
