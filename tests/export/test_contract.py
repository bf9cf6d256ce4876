"""Every form of export over every family: loaded again, it answers as the trial did."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from search.export.exported_trial import choose_trial
from search.export.formats import FORMATS
from search.export.run import Wish, apply_edit, export
from search.export.verify import verify
from tasks.errors import InputError

_path = Path(__file__).parents[1] / "weights" / "test_families.py"
_spec = importlib.util.spec_from_file_location("families_under_contract", _path)
families = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(families)

TEXT = [
    name
    for name, (auto, *_) in families.FAMILIES.items()
    if auto in ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM")
    and name not in ("ALBERT", "GPT-2 with cross-attention", "Whisper decoder", "Qwen 2")
    and name not in ("NLLB MoE", "Switch Transformers")
]
"""ALBERT's layers share their weights, so nothing can be cut; the next two need a second input;
Qwen 2 (whose layers Qwen 2 MoE has too) replaces a tokenizer of whole words by its own; the last
two cannot be scored, because transformers asks their encoder's output for the router's."""


def cuts(model):
    """(deep, shallow) compositions on the last layer's matrices, one of each type."""
    from search.weights.matrices import find_matrices

    last = {}
    for matrix in find_matrices(model):
        if matrix.searchable:
            last[matrix.ref.type] = matrix.ref
    fused = [t for t in ("q_proj", "k_proj", "fc_in", "fc_out") if t in last]
    deep = " ".join(f"{last[t]}=rank:{n + 2}" for n, t in enumerate(fused))
    deep += f" {last['out_proj']}=keep-bottom/rank:4"
    if "v_proj" in last:
        deep += f" {last['v_proj']}=prune/0.5"
    shallow = " ".join(f"{last[t]}=0.8" for t in ("q_proj", "v_proj", "out_proj") if t in last)
    return [deep, shallow]


def tensors(folder):
    return {
        k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()
    }


FALCON = "Falcon multi-query", "Falcon multi-head", "Falcon grouped"
REFUSED = {
    **{("factored", name): "every edited matrix stays dense" for name in FALCON},
    **{("lora", name): "peft does not adapt" for name in FALCON},
    ("factored", "Granite MoE"): "another form",
}
"""What a family's own layers or storage rule out, by what is said of it."""


@pytest.mark.parametrize("name", TEXT)
def test_every_format(name, finish, tmp_path):
    model = families.build(name)
    study = finish(tmp_path, model, cuts(model))
    record = study.record
    done = {}
    for form in FORMATS:
        trial = choose_trial(record, 1 if form == "lora" else 0)
        out = tmp_path / form
        if reason := REFUSED.get((form, name)):
            with pytest.raises(InputError, match=reason):
                export(record, trial, Wish(out, form, verify=False))
            assert not out.exists()
            continue
        export(record, trial, Wish(out, form, verify=False))
        done[form] = verify(out, study.folder, trial.number, form)
        assert done[form].agrees, done[form].sentence()
    dense, base = tensors(tmp_path / "dense"), tensors(study.model)
    facts = json.loads((tmp_path / "dense" / "interventions.json").read_text())
    assert dense.keys() == base.keys()
    changed = {k for k in base if not torch.equal(dense[k], base[k])}
    assert changed == set(facts["edited_tensors"]) and changed
    assert all(dense[k].dtype == base[k].dtype for k in base)
    for form in ("patch", "recipe"):
        apply_edit(tmp_path / form, str(study.model), tmp_path / f"{form}-applied")
        again = tensors(tmp_path / f"{form}-applied")
        assert again.keys() == dense.keys()
        assert all(torch.equal(again[k], dense[k]) for k in dense)
