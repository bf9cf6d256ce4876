"""The commands on weights and factor caches, in this process, on the demo's model."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

import search.demo
from search.model import ModelSource
from search.origin import WeightOrigin
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices

MODEL = str(Path(search.demo.__file__).parent / "model")


@pytest.fixture
def filled(tmp_path):
    """A cache with two matrices of the demo's model and one of another, and one of both."""
    source = ModelSource(MODEL)
    origin, root = WeightOrigin(source), tmp_path / "factors"
    keys = {}
    with FactorCache(root) as cache:
        for matrix in find_matrices(source.skeleton()):
            address = str(matrix.ref)
            if address in ("0.q_proj", "1.q_proj", "2.q_proj"):
                weight = origin.read(matrix)
                keys[address] = cache.key(weight)
                model = "other" if address == "2.q_proj" else MODEL
                cache.ensure(weight, keys[address], f"{model}:{address}", rank=3)
        cache.ensure(torch.zeros(1), keys["1.q_proj"], "other:1.q_proj", rank=3)
    return root, keys


def test_matrices_lists_all_and_loads_nothing(run, monkeypatch):
    monkeypatch.setattr(ModelSource, "load", lambda *_: pytest.fail("the weights were loaded"))
    code, out, _ = run("matrices", MODEL, "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 19
    row = next(row for row in rows if row["address"] == "2.fc_in")
    assert row == {
        "address": "2.fc_in",
        "type": "fc_in",
        "shape": [256, 64],
        "dtype": "float32",
        "parameters": 16384,
        "parameter": "transformer.h.2.mlp.fc_in.weight",
        "module": "transformer.h.2.mlp.fc_in",
        "rule": "table row gptj",
        "searchable": True,
        "why_not": "",
        "cached": None,
    }
    code, out, _ = run("matrices", MODEL)
    lines = out.splitlines()
    assert len(lines) == 21 and "cached" not in lines[0]
    assert lines[1].startswith("0.q_proj") and lines[1].endswith("table row gptj")
    assert lines[-1] == "19 matrices, 169,088 parameters, 18 searchable"


def test_matrices_says_which_are_cached(run, filled):
    _, out, _ = run("matrices", MODEL, "--factors", filled[0], "--json")
    cached = {row["address"] for row in json.loads(out) if row["cached"]}
    assert cached == {"0.q_proj", "1.q_proj", "2.q_proj"}
    assert run("matrices", MODEL, "--factors", filled[0])[1].endswith("3 cached\n")


def test_what_is_not_searchable_says_why(run, tmp_path):
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = dict(hidden_size=32, embedding_size=16, num_attention_heads=4, intermediate_size=40)
    config = AutoConfig.for_model("albert", vocab_size=40, num_hidden_layers=2, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "albert")
    _, out, _ = run("matrices", tmp_path / "albert", "--json")
    rows = json.loads(out)
    assert not any(row["searchable"] for row in rows)
    inside = [row for row in rows if not row["rule"].startswith("outside the blocks")]
    assert len(inside) == 6 and len(rows) > 6
    for row in inside:
        assert row["why_not"] == "one set of weights serves 2 layers"


def test_verify_sets_damage_aside_and_fails(run, filled):
    root, keys = filled
    assert run("factors", "verify", root)[:2] == (0, "3 whole, 0 damaged and set aside\n")
    path = FactorCache(root).path(keys["0.q_proj"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, out, _ = run("factors", "verify", root)
    assert code == 1 and f"damaged: {keys['0.q_proj']}" in out
    assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()


def test_rebuild_writes_a_lost_index(run, filled):
    root, keys = filled
    (root / "index.parquet").unlink()
    assert run("factors", "rebuild", root)[1] == "3 matrices in the index\n"
    assert set(FactorCache(root).index()) == set(keys.values())


def test_du_counts_by_model_and_waste(run, filled):
    root, keys = filled
    (root / ".index.parquet.x.tmp").write_bytes(b"12345")
    found = json.loads(run("factors", "du", root, "--json")[1])
    size = FactorCache(root).path(keys["0.q_proj"]).stat().st_size
    assert {name: files for name, (files, _) in found["models"].items()} == {MODEL: 2, "other": 2}
    assert (found["files"], found["waste"], found["waste_bytes"]) == (3, 1, 5)
    assert abs(found["bytes"] - 3 * size) < 400
    assert "all (some may serve many models)" in run("factors", "du", root)[1]


def test_gc_says_first_and_removes_waste_that_is_old(run, filled):
    root, keys = filled
    old, young = root / "ab", root / "cd"
    for folder in (old, young):
        folder.mkdir(exist_ok=True)
    orphan, live = old / ".k.safetensors.1.tmp", young / ".k.safetensors.2.tmp"
    damaged = old / "k.safetensors.damaged"
    for path in (orphan, live, damaged):
        path.write_bytes(b"x")
    os.utime(orphan, (time.time() - 7200,) * 2)
    code, out, _ = run("factors", "gc", root)
    assert code == 0 and "would remove 2 files" in out
    assert orphan.exists() and damaged.exists()
    assert "removed 2 files" in run("factors", "gc", root, "--yes")[1]
    assert not orphan.exists() and not damaged.exists() and live.exists()
    assert set(FactorCache(root).keys()) == set(keys.values())


def test_gc_keeps_the_factors_of_named_models_even_without_an_index(run, filled):
    root, keys = filled
    _, out, _ = run("factors", "gc", root, "--keep-model", MODEL)
    assert "would remove 1 files" in out and "factors of other" in out
    assert len(list(FactorCache(root).keys())) == 3
    assert run("factors", "gc", root, "--keep-model", MODEL, "--yes")[0] == 0
    left = {keys["0.q_proj"], keys["1.q_proj"]}
    assert set(FactorCache(root).keys()) == set(FactorCache(root).index()) == left
    (root / "index.parquet").unlink()
    assert "would remove 0 files" in run("factors", "gc", root, "--keep-model", MODEL)[1]


def test_bad_folders_and_models_are_one_sentence(run, filled, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    shutil.copytree(filled[0], tmp_path / "copy")
    for words, expected in [
        (("factors", "verify", tmp_path / "absent"), "does not exist"),
        (("factors", "gc", tmp_path / "photos", "--yes"), "is not a factor cache"),
        (("factors", "gc", tmp_path / "copy", "--keep-model", "othr", "--yes"), "'other'?"),
        (("matrices", "./absent"), "does not exist"),
    ]:
        code, _, err = run(*words)
        assert code == 2 and expected in err and err.count("\n") == 1
    assert len(list(FactorCache(tmp_path / "copy").keys())) == 3
    assert (tmp_path / "photos" / "a.jpg").exists()
