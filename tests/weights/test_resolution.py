"""One folder, one checkpoint: what is read is what transformers reads, or nothing is."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from search.model import ModelSource
from search.weights.checkpoint import CheckpointReader
from search.weights.resolution import weight_files
from tasks.errors import InputError

CONFIG = LlamaConfig(
    vocab_size=24,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
)


def llama(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(CONFIG)


def stale_single(folder):
    """Saved whole, then other weights in shards."""
    llama(0).save_pretrained(folder / "whole")
    llama(7).save_pretrained(folder, max_shard_size="5KB")
    shutil.move(folder / "whole" / "model.safetensors", folder)
    shutil.rmtree(folder / "whole")


def stale_index(folder):
    """Saved in shards, then whole; the index stays and its shards are gone."""
    stale_single(folder)
    for shard in folder.glob("model-0*.safetensors"):
        shard.unlink()


@pytest.mark.parametrize("make", [stale_single, stale_index])
@pytest.mark.parametrize(
    "read",
    [
        CheckpointReader,
        weight_files,
        lambda folder: ModelSource(str(folder)).load(),
        lambda folder: ModelSource(str(folder)).skeleton(),
    ],
    ids=["matrices", "files", "load", "skeleton"],
)
def test_two_checkpoints_in_one_folder_are_refused_by_all_that_reads(tmp_path, make, read):
    make(tmp_path)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    said = str(error.value)
    assert "model.safetensors" in said
    assert "model.safetensors.index.json" in said
    assert "remove" in said


def test_an_index_of_the_whole_file_is_no_second_checkpoint(tmp_path):
    model = llama(0)
    model.save_pretrained(tmp_path)
    names = CheckpointReader(tmp_path).files
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(weight_files(tmp_path).values()) == {"model.safetensors"}
    assert weight_files(tmp_path).keys() == names.keys()


def test_shards_that_no_index_names_are_not_read(tmp_path):
    llama(0).save_pretrained(tmp_path)
    save_file({"stray": torch.zeros(2)}, tmp_path / "model-00001-of-00002.safetensors")
    assert set(weight_files(tmp_path).values()) == {"model.safetensors"}


def test_a_file_that_the_configuration_names_comes_first_as_in_transformers(tmp_path):
    llama(0).save_pretrained(tmp_path)
    llama(7).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "named.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["transformers_weights"] = "named.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert set(weight_files(tmp_path).values()) == {"named.safetensors"}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    ours = ModelSource(str(tmp_path)).load().state_dict()
    wanted = llama(7).state_dict()
    for name, value in wanted.items():
        assert torch.equal(ours[name], value), name
        assert torch.equal(theirs[name], value), name


def test_the_dtype_of_a_folder_is_that_of_the_weights_that_are_read(tmp_path):
    llama(0).to(torch.bfloat16).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype", None)
    config.pop("torch_dtype", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"stray": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    assert ModelSource(str(tmp_path)).torch_dtype == torch.bfloat16
