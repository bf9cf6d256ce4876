"""Weights that stay in their files: the same answers, and memory for what is edited alone."""

import hashlib
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from search.cuts.composition import Composition
from search.model import ModelSource
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices

CUT = Composition.parse(["1.fc_in=rank:3"])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Of 7 MB, in bfloat16."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=1024, num_hidden_layers=2,
        num_attention_heads=8, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return ModelSource(str(folder))


def _private_bytes(path):
    """Of the pages of a file that this process has mapped, those that it has written."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Anonymous:"):
            found += int(line.split()[1]) * 1024
    return found


def _is_in(path, tensor):
    """Whether a tensor begins in a mapping of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if line.endswith(str(path)) and int(start, 16) <= tensor.data_ptr() < int(end, 16):
            return True
    return False


def _digest(source):
    return hashlib.sha256((source.folder / "model.safetensors").read_bytes()).hexdigest()


def test_only_what_is_edited_takes_memory_of_its_own(source, tmp_path):
    mapped = replace(source, mapped=True)
    file, digest = source.folder / "model.safetensors", _digest(source)
    assert mapped.stays_mapped and not source.stays_mapped
    assert not any(_is_in(file, tensor) for tensor in source.load().parameters())
    model = mapped.load()
    assert all(_is_in(file, tensor) for tensor in model.parameters())
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]))
    assert _private_bytes(file) == 0
    editor = Editor(model, find_matrices(model), FactorCache(tmp_path))
    with editor.applied(CUT):
        pass
    (edited,) = (m for m in find_matrices(model) if m.ref == CUT.interventions[0].matrix)
    size = edited.shape[0] * edited.shape[1] * 2
    assert size <= _private_bytes(file) <= size + 2 * resource.getpagesize()
    assert _digest(source) == digest


def test_answers_and_restored_bytes_are_those_of_weights_in_memory(source, tmp_path):
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    found = []
    for one in (source, replace(source, mapped=True)):
        model = one.load()
        before = {name: value.clone() for name, value in model.named_parameters()}
        editor = Editor(model, find_matrices(model), FactorCache(tmp_path))
        with torch.inference_mode():
            plain = model(ids).logits
            with editor.applied(CUT):
                cut = model(ids).logits
        assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
        assert not torch.equal(plain, cut)
        found.append((plain, cut))
    for owned, other in zip(*found, strict=True):
        torch.testing.assert_close(owned, other, rtol=2e-2, atol=2e-2)


def test_weights_of_another_dtype_are_in_memory(source):
    assert not replace(source, mapped=True, dtype="float32").stays_mapped
