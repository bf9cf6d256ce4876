"""A model that does not load is one sentence with the file and the remedy, before any factor."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 548105171\n"


def config(**changed):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return spoil


def setting(**changed):
    def spoil(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return spoil


def text(name, content):
    def spoil(folder):
        (folder / name).write_text(content)

    return spoil


def half(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sharded(name):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if name == "model-1.safetensors":
            tensors.pop("transformer.h.1.mlp.c_fc.weight")
            save_file(tensors, folder / name, {"format": "pt"})
            tensors["transformer.h.1.mlp.c_fc.weight"] = None
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def without(*names):
    def spoil(folder):
        for name in names:
            (folder / name).unlink()

    return spoil


def added_token(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["Question"])
    tokenizer.save_pretrained(folder)


def pad_beyond(folder):
    """A Llama, whose embedding is built for the pad token; GPT-2's knows none."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=400, **sizes)).save_pretrained(folder)
    config(pad_token_id=9999)(folder)


DEEP = "[" * 200_000
CASES = {
    "pointer": (text("model.safetensors", POINTER), ["model.safetensors", "git lfs pull"]),
    "cut": (half, ["model.safetensors", "no whole safetensors file", "download it again"]),
    "no shard": (sharded("gone.safetensors"), ["gone.safetensors does not exist"]),
    "no tensor": (sharded("model-1.safetensors"), ["h.1.mlp.c_fc.weight", "index lists it"]),
    "layers": (config(n_layer="2"), ["config.json", "n_layer", "'2'"]),
    "dtype": (config(dtype="floaty"), ["config.json", "'floaty'", "bfloat16"]),
    "attention": (config(attn_implementation="flash_attention_2"), ["config.json", "lash"]),
    "heads": (config(n_head=3), ["config.json", "num_heads"]),
    "pad": (pad_beyond, ["config.json", "num_embeddings"]),
    "type": (config(model_type="martian"), ["config.json", "martian"]),
    "classes": (config(architectures=3), ["config.json", "architectures is 3"]),
    "deep": (text("config.json", DEEP), ["config.json", "nested too deeply"]),
    "digits": (text("config.json", f'{{"n_layer": {"9" * 5000}}}'), ["config.json", "digit"]),
    "list": (text("config.json", "[]"), ["config.json", "not contain a mapping"]),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), ["no tokenizer"]),
    "tokenizer": (text("tokenizer.json", "{}"), ["tokenizer.json", "download these files again"]),
    "longest": (setting(model_max_length="2"), ["tokenizer_config.json", "download these files"]),
    "added token": (added_token, ["'Question'", "rows", "tokenizer"]),
    "index": (text("model.safetensors.index.json", DEEP), ["index.json", "nested too deeply"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_study_of_it_is_refused_before_any_factor(case, refused, study, model, tmp_path):
    spoil, words = CASES[case]
    spoil(model)
    said = refused("launch", study(), "--out", tmp_path / "out")
    for word in words:
        assert word in said
    assert not (tmp_path / "factors").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CASES)
def test_evaluate_refuses_it(case, refused, model, questions, tmp_path):
    spoil, words = CASES[case]
    spoil(model)
    said = refused(
        *("evaluate", model, "--task", "jsonl", "--data", questions),
        *("--intervention", "1.fc_in=0.1", "--factors", tmp_path / "factors"),
    )
    for word in words:
        assert word in said
    assert not (tmp_path / "factors").exists()


@pytest.mark.parametrize("command", ["matrices", "spectra"])
@pytest.mark.parametrize("case", ["layers", "dtype", "attention", "heads", "pad", "deep"])
def test_commands_on_matrices_refuse_it(command, case, refused, model):
    spoil, words = CASES[case]
    spoil(model)
    said = refused(command, model)
    assert words[0] in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model/model.safetensors", "give its folder"),
        ("model-q4.gguf", "GGUF"),
        ("weights.bin", "give a folder with config.json"),
    ],
)
def test_a_file_is_no_model(name, said, refused, model, tmp_path):
    path = tmp_path / name
    if not path.exists():
        path.write_bytes(b"GGUF")
    assert said in refused("matrices", path)


def test_a_token_that_no_question_has_does_no_harm(run, model, questions):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["Martian"])
    tokenizer.save_pretrained(model)
    code, _, said = run("evaluate", model, "--task", "jsonl", "--data", questions)
    assert code == 0, said


def test_a_fault_of_our_own_shows_itself(monkeypatch, run, model):
    from search.report import listing

    def broken(*_):
        raise KeyError("ours")

    monkeypatch.setattr(listing, "all_matrices", broken)
    with pytest.raises(KeyError, match="ours"):
        run("matrices", model)


def test_memory_is_no_fault_of_the_file():
    from tasks.foreign import reading

    with pytest.raises(MemoryError), reading("x", "y"):
        raise MemoryError
