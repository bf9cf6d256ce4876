import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from search.weights.checkpoint import CheckpointReader, NotInCheckpoint
from search.weights.matrices import find_matrices
from tasks.errors import InputError

SIZES = dict(
    vocab_size=24,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
)
GPT2 = dict(vocab_size=24, n_embd=16, n_layer=2, n_head=2, n_positions=16)


def config(model_type, **kwargs):
    return AutoConfig.for_model(model_type, **kwargs)


def saved(model, folder, **kwargs):
    model.save_pretrained(folder, **kwargs)
    return CheckpointReader(folder)


def check_equal(reader, model):
    matrices = find_matrices(model)
    for matrix in matrices:
        assert reader.has(matrix)
        read = reader.read(matrix)
        held = matrix.read(model.get_parameter(matrix.parameter))
        assert read.dtype == held.dtype
        assert torch.equal(read, held), matrix.ref
    return len(matrices)


@pytest.mark.parametrize(
    ("auto", "made"),
    [
        (AutoModelForCausalLM, config("gpt2", **GPT2)),
        (AutoModelForCausalLM, config("llama", **SIZES)),
        (AutoModelForMaskedLM, config("bert", **SIZES)),
        (AutoModelForSequenceClassification, config("roberta", **SIZES)),
        (AutoModelForCausalLM, config("phi3", **SIZES, pad_token_id=0)),
        (AutoModelForCausalLM, config("gpt_oss", **SIZES, head_dim=8, num_local_experts=2)),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
@pytest.mark.parametrize("shard", ["50GB", "4KB"])
def test_bytes_are_those_of_the_loaded_model(tmp_path, auto, made, shard):
    torch.manual_seed(0)
    reader = saved(auto.from_config(made), tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "4KB")
    assert check_equal(reader, auto.from_pretrained(tmp_path)) >= 12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_are_cast_as_loading_casts_them(tmp_path, dtype):
    reader = saved(AutoModelForCausalLM.from_config(config("llama", **SIZES)), tmp_path)
    check_equal(reader, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype))


def test_base_models_prefix_may_be_missing_or_extra(tmp_path):
    base, whole = tmp_path / "base", tmp_path / "whole"
    reader = saved(AutoModel.from_config(config("bert", **SIZES)), base)
    check_equal(reader, AutoModelForMaskedLM.from_pretrained(base))
    reader = saved(AutoModelForCausalLM.from_config(config("gpt2", **GPT2)), whole)
    check_equal(reader, AutoModel.from_pretrained(whole))


MOE = dict(SIZES, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=12)


@pytest.mark.parametrize(
    "made",
    [
        config("mixtral", **SIZES, num_local_experts=2),
        config("qwen3_moe", **MOE, head_dim=8),
        config("qwen2_moe", **MOE, shared_expert_intermediate_size=20),
        config("olmoe", **MOE),
    ],
    ids=lambda made: made.model_type,
)
def test_experts_that_files_hold_one_by_one(tmp_path, made):
    """Transformers stacks them while loading; the bytes are those of the stack's slices."""
    torch.manual_seed(0)
    reader = saved(AutoModelForCausalLM.from_config(made), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    experts = [m for m in find_matrices(model) if m.ref.expert is not None]
    assert len(experts) == 12
    for matrix in experts:
        held = matrix.read(model.get_parameter(matrix.parameter))
        assert torch.equal(reader.read(matrix), held), matrix.ref


def test_renamed_weights_are_reported_missing(tmp_path):
    """Mixtral's router has another name in the files than in the model."""
    made = config("mixtral", **SIZES, num_local_experts=2)
    reader = saved(AutoModelForCausalLM.from_config(made), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    router = next(m for m in find_matrices(model) if not m.searchable)
    assert not reader.has(router)
    with pytest.raises(NotInCheckpoint, match="gate"):
        reader.read(router)


def test_a_tensor_of_another_shape_is_not_the_matrix(tmp_path):
    model = AutoModelForCausalLM.from_config(config("gpt2", **GPT2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["transformer.h.0.mlp.c_fc.weight"] = torch.zeros(64, 16)  # transposed
    save_file(
        {n: v for n, v in state.items() if n != "lm_head.weight"}, tmp_path / "model.safetensors"
    )
    reader = CheckpointReader(tmp_path)
    matrix = next(m for m in find_matrices(model) if str(m.ref) == "0.fc_in")
    assert not reader.has(matrix)
    with pytest.raises(NotInCheckpoint, match="shape"):
        reader.read(matrix)


def test_pickles_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="save_pretrained"):
        CheckpointReader(tmp_path)


def test_folders_without_weights_and_torn_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        CheckpointReader(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="no whole safetensors file"):
        CheckpointReader(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    model = AutoModelForCausalLM.from_config(config("llama", **SIZES))
    reader = saved(model, tmp_path, max_shard_size="4KB")
    matrix = find_matrices(model)[0]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    (tmp_path / index["weight_map"][matrix.parameter]).unlink()
    with pytest.raises(InputError, match="does not exist"):
        reader.read(matrix)
