"""Weights that stay in their files: the same answers, and memory for what is edited alone."""

import hashlib
from dataclasses import replace

import psutil
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
    """Of 50 MB, in bfloat16."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=16384, hidden_size=512, intermediate_size=2048, num_hidden_layers=2,
        num_attention_heads=8, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return ModelSource(str(folder))


def _own_bytes():
    """Memory of this process that is no page of a file."""
    found = psutil.Process().memory_info()
    return found.rss - found.shared


def _digest(source):
    return hashlib.sha256((source.folder / "model.safetensors").read_bytes()).hexdigest()


def test_only_what_is_edited_takes_memory_of_its_own(source, tmp_path):
    mapped = replace(source, mapped=True)
    size = (source.folder / "model.safetensors").stat().st_size
    assert size > 50_000_000 and mapped.stays_mapped and not source.stays_mapped
    source.load()  # whatever a first load takes once
    kept = []
    for one in (mapped, source):
        before = _own_bytes()
        model = one.load()
        with torch.inference_mode():
            model(torch.tensor([[1, 2, 3]]))
        kept.append(_own_bytes() - before)
        del model
    assert kept[0] < size / 4
    assert kept[1] > size * 3 / 4
    before, digest = _own_bytes(), _digest(source)
    model = mapped.load()
    editor = Editor(model, find_matrices(model), FactorCache(tmp_path), originals_bytes=0)
    with editor.applied(CUT):
        pass
    assert _own_bytes() - before < size / 2
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
