"""Models outside the table, tied weights, and weights that cannot be edited."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from search.weights.matrices import find_matrices
from tasks.errors import InputError


class Attention(nn.Module):
    def __init__(self, width=8, out="o_proj"):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", out):
            setattr(self, name, nn.Linear(width, width))


class Network(nn.Module):
    def __init__(self, names=("gate_proj", "up_proj", "down_proj"), width=8, inner=20):
        super().__init__()
        for name in names[:-1]:
            setattr(self, name, nn.Linear(width, inner))
        setattr(self, names[-1], nn.Linear(inner, width))


class Block(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Model(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.layers = nn.ModuleList(blocks)
        self.head = nn.Linear(8, 10)


def found(*blocks):
    return {str(m.ref): m for m in find_matrices(Model(*blocks))}


def test_an_unknown_family_is_typed_by_its_structure():
    matrices = found(Block(attn=Attention(), mlp=Network()))
    assert {name: m.module for name, m in matrices.items()} == {
        "0.q_proj": "layers.0.attn.q_proj",
        "0.k_proj": "layers.0.attn.k_proj",
        "0.v_proj": "layers.0.attn.v_proj",
        "0.out_proj": "layers.0.attn.o_proj",
        "0.fc_in": "layers.0.mlp.gate_proj",
        "0.fc_up": "layers.0.mlp.up_proj",
        "0.fc_out": "layers.0.mlp.down_proj",
    }
    assert all(m.searchable and m.rule.startswith("structural fallback") for m in matrices.values())


def test_up_without_a_gate_is_fc_in():
    matrices = found(Block(attn=Attention(), mlp=Network(("up_proj", "down_proj"))))
    assert matrices["0.fc_in"].module == "layers.0.mlp.up_proj"


def test_cross_attention_is_told_apart():
    matrices = found(Block(attn=Attention(), cross_attn=Attention(), mlp=Network()))
    assert matrices["0.cross.q_proj"].module == "layers.0.cross_attn.q_proj"
    assert matrices["0.q_proj"].module == "layers.0.attn.q_proj"


def test_what_is_unclear_keeps_its_own_name_and_stays_out_of_the_space():
    matrices = found(
        Block(attn=Attention(), mix=nn.Linear(8, 8), qkv=nn.Linear(8, 24), mlp=Network())
    )
    for name in ("0.mix", "0.qkv"):
        assert not matrices[name].searchable
        assert matrices[name].rule == "no rule knows this module"
        assert matrices[name].shape[1] == 8


def test_two_of_a_kind_in_one_block_are_both_listed_and_neither_searched():
    matrices = found(Block(first=Network(), second=Network(), attn=Attention()))
    assert len(matrices) == 10
    assert not any(name in matrices for name in ("0.fc_in", "0.fc_up", "0.fc_out"))
    double = matrices["0.module.first.gate_proj"]
    assert not double.searchable and "would name more than one matrix" in double.rule


class Experts(nn.Module):
    def __init__(self, gate_up, down, **marks):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(gate_up))
        self.down_proj = nn.Parameter(torch.randn(down))
        for name, value in marks.items():
            setattr(self, name, value)


class Mixture(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = experts
        self.shared_experts = Network()


@pytest.mark.parametrize(
    ("shapes", "marks"),
    [
        (((3, 24, 8), (3, 8, 12)), {}),
        (((3, 8, 24), (3, 12, 8)), {}),
        (((3, 8, 24), (3, 12, 8)), {"is_transposed": True}),
        (((3, 8, 24), (3, 12, 8)), {"is_transposed": True, "is_concatenated": False}),
    ],
)
def test_stacked_experts_either_way_round(shapes, marks):
    model = Model(Block(attn=Attention(), moe=Mixture(Experts(*shapes, **marks))))
    matrices = {str(m.ref): m for m in find_matrices(model)}
    stored = model.layers[0].moe.experts.gate_up_proj.detach()[2]
    whole = stored if shapes[0][1] == 24 else stored.T
    gate, up = (whole[::2], whole[1::2]) if "is_concatenated" in marks else whole.chunk(2)
    parameter = model.get_parameter("layers.0.moe.experts.gate_up_proj")
    assert torch.equal(matrices["0.experts.2.fc_in"].read(parameter), gate)
    assert torch.equal(matrices["0.experts.2.fc_up"].read(parameter), up)
    assert matrices["0.experts.0.fc_out"].shape == (8, 12)
    assert matrices["0.fc_in"].module == "layers.0.moe.shared_experts.gate_proj"
    assert not matrices["0.moe.gate"].searchable


def test_experts_that_are_modules():
    experts = nn.ModuleList([Network(), Network()])
    matrices = found(Block(attn=Attention(), moe=Block(experts=experts)))
    assert matrices["0.experts.1.fc_up"].module == "layers.0.moe.experts.1.up_proj"
    assert sum(m.ref.expert == 0 for m in matrices.values()) == 3


def test_berts_feed_forward_outside_the_table():
    block = Block(
        attn=Attention(),
        intermediate=Block(dense=nn.Linear(8, 20)),
        output=Block(dense=nn.Linear(20, 8)),
    )
    assert found(block)["0.fc_out"].module == "layers.0.output.dense"


def test_several_stacks_have_names_of_their_own():
    model = nn.Module()
    for name in ("first_part", "second_part", "decoder"):
        part = nn.Module()
        part.layers = nn.ModuleList([Block(attn=Attention(), mlp=Network())])
        setattr(model, name, part)
    assert {m.ref.stack for m in find_matrices(model)} == {"firstpart", "secondpart", "decoder"}


def test_wrong_shapes_are_not_believed():
    odd = Network(("gate_proj", "up_proj", "down_proj"))
    odd.up_proj = nn.Linear(8, 12)
    matrices = found(Block(attn=Attention(), mlp=odd))
    assert "0.fc_in" not in matrices and "0.mlp.gate_proj" in matrices


def test_fused_rows_that_do_not_fit_the_configuration_stay_whole():
    config = AutoConfig.for_model(
        "phi3",
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        pad_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers[0].self_attn.qkv_proj = nn.Linear(16, 50)
    matrices = {str(m.ref): m for m in find_matrices(model)}
    whole = matrices["0.self_attn.qkv_proj"]
    assert whole.shape == (50, 16) and not whole.searchable
    assert "do not fit the configuration" in whole.rule


def test_tied_weights_are_listed_once_and_said_to_be_tied():
    first, second = Block(attn=Attention(), mlp=Network()), Block(attn=Attention(), mlp=Network())
    second.mlp.gate_proj.weight = first.mlp.gate_proj.weight
    matrices = found(first, second)
    assert "1.fc_in" not in matrices
    tied = matrices["0.fc_in"]
    assert tied.shared == "also used as layers.1.mlp.gate_proj.weight" and not tied.searchable


def test_albert_says_how_many_layers_share_its_weights():
    config = AutoConfig.for_model(
        "albert",
        vocab_size=10,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=6,
        num_hidden_groups=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    matrices = {str(m.ref): m for m in find_matrices(AutoModelForMaskedLM.from_config(config))}
    assert len(matrices) == 12
    assert matrices["1.fc_in"].shared == "one set of weights serves 3 layers"


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype):
    block = Block(attn=Attention(), mlp=Network())
    block.mlp.up_proj.weight = nn.Parameter(
        torch.zeros(20, 8, dtype=torch.uint8).view(dtype), requires_grad=False
    )
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.weight is quantised"):
        find_matrices(Model(block))


def test_packed_weights_are_refused():
    block = Block(attn=Attention(), mlp=Network())
    block.mlp.register_buffer("qweight", torch.zeros(4, dtype=torch.int32))
    with pytest.raises(InputError, match=r"layers\.0\.mlp is quantised"):
        find_matrices(Model(block))


def test_a_quantised_configuration_is_refused_before_the_weights_are_there():
    config = AutoConfig.for_model(
        "llama",
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        quantization_config={"quant_method": "gptq", "bits": 4},
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(InputError, match="gptq"):
        find_matrices(model)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="Linear has no stack of blocks"):
        find_matrices(nn.Linear(3, 3))
