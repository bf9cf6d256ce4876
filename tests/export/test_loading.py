"""Factored models, adapters and dense folders in other programs' hands."""

from __future__ import annotations

import json

import ctranslate2
import numpy as np
import pytest
import torch
from ctranslate2.converters import TransformersConverter
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from search.export.exported_trial import choose_trial
from search.export.factored import FactoredLinear, load_factored
from search.export.run import Wish, export
from search.weights.svd import decompose
from tasks.errors import InputError

IDS = torch.arange(5, 25).reshape(2, 10)


def exported(study, out, form, trial=0):
    export(study.record, choose_trial(study.record, trial), Wish(out, form, verify=False))
    return out


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits.double()


def answers_as(model, dense, rounding):
    """Check the logits of `model` by those of the dense export, which is loaded from `dense`."""
    plain = AutoModelForCausalLM.from_pretrained(dense)
    rounding.check(logits(model), logits(plain), logits(rounding.exact(plain)))


@pytest.fixture(scope="module")
def factored(gptj, tmp_path_factory):
    return exported(gptj, tmp_path_factory.mktemp("factored") / "model", "factored")


@pytest.fixture(scope="module")
def dense(gptj, tmp_path_factory):
    return exported(gptj, tmp_path_factory.mktemp("dense") / "model", "dense")


def test_two_layers_in_place_of_a_matrix(gptj, factored, dense, rounding):
    model, base = load_factored(factored), AutoModelForCausalLM.from_pretrained(gptj.model)
    layer = model.transformer.h[1].mlp.fc_in
    assert isinstance(layer, FactoredLinear)
    assert layer.weight.shape == (3, 32) and layer.up.weight.shape == (128, 3)
    parts = decompose(base.transformer.h[1].mlp.fc_in.weight)
    best = (parts.U[:, :3] * parts.S[:3]) @ parts.V[:, :3].T
    torch.testing.assert_close(layer.up.weight @ layer.weight, best, rtol=0, atol=1e-6)
    assert torch.equal(layer.up.bias, base.transformer.h[1].mlp.fc_in.bias)
    assert isinstance(model.transformer.h[1].mlp.fc_out, nn.Linear)  # rank 28 of 32 would grow
    answers_as(model, dense, rounding)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (base, model))
    saved = 32 * 32 - 2 * 64 + 32 * 128 - 3 * 160
    assert before - after == saved
    facts = json.loads((factored / "interventions.json").read_text())
    assert facts["ranks"] == {"transformer.h.0.attn.q_proj": 2, "transformer.h.1.mlp.fc_in": 3}
    assert "is larger than" in facts["kept_dense"]["1.fc_out"]


def test_plain_transformers_refuses_it_loudly(factored):
    with pytest.raises(RuntimeError, match=r"size|shape|mismatch"):
        AutoModelForCausalLM.from_pretrained(factored)


def test_load_factored_refuses_what_is_none(gptj, factored, tmp_path):
    with pytest.raises(InputError, match="no factored model"):
        load_factored(gptj.model)
    with pytest.raises(InputError, match="does not exist"):
        load_factored(tmp_path / "absent")


def test_the_ordinary_trainer_trains_it_and_it_round_trips(factored, tmp_path):
    model = load_factored(factored)
    before = {name: p.clone() for name, p in model.named_parameters()}
    rows = [{"input_ids": row, "labels": row} for row in IDS]
    options = TrainingArguments(
        str(tmp_path / "run"), max_steps=3, report_to=[], use_cpu=True, save_strategy="no",
        learning_rate=1e-2, per_device_train_batch_size=2, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, options, train_dataset=rows)
    trainer.train()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {"transformer.h.1.mlp.fc_in.weight", "transformer.h.1.mlp.fc_in.up.weight"} <= moved
    trainer.save_model(str(tmp_path / "saved"))
    again = load_factored(tmp_path / "saved")
    assert torch.equal(logits(again), logits(model.eval()))
    assert {n: tuple(p.shape) for n, p in again.named_parameters()} == {
        n: tuple(p.shape) for n, p in before.items()
    }


def test_a_zero_matrix_is_two_layers_of_rank_0(finish, families, tmp_path, rounding):
    study = finish(tmp_path, families.build("Llama 1-3"), ["1.fc_in=zero 1.q_proj=rank:1"])
    model = load_factored(exported(study, tmp_path / "model", "factored"))
    assert model.model.layers[1].mlp.gate_proj.weight.shape == (0, 32)
    answers_as(model, exported(study, tmp_path / "dense", "dense"), rounding)


def test_factored_is_refused_where_nothing_gets_smaller(gptj, tmp_path):
    with pytest.raises(InputError, match="every edited matrix stays dense"):
        exported(gptj, tmp_path / "model", "factored", trial=1)
    assert list(tmp_path.iterdir()) == []


def test_plain_peft_loads_the_adapter_merged_or_not(gptj, tmp_path, rounding):
    adapter = exported(gptj, tmp_path / "lora", "lora", trial=1)
    dense = exported(gptj, tmp_path / "dense", "dense", trial=1)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gptj.model), adapter)
    answers_as(model, dense, rounding)
    answers_as(model.merge_and_unload(), dense, rounding)
    facts = json.loads((adapter / "interventions.json").read_text())
    assert facts["errors"].keys() == {"1.fc_in", "1.out_proj"}
    assert 0 <= max(facts["errors"].values()) < 1e-6


def test_lora_is_refused_where_the_difference_is_the_larger_part(gptj, finish, families, tmp_path):
    with pytest.raises(InputError, match="larger part"):
        exported(gptj, tmp_path / "model", "lora", trial=0)
    study = finish(tmp_path, families.build("Llama 1-3"), ["1.fc_in=prune/0.9"])
    with pytest.raises(InputError, match="does not remove singular triples"):
        exported(study, tmp_path / "model", "lora")


def test_a_dense_folder_is_plain_enough_for_another_converter(finish, families, tmp_path, rounding):
    """CTranslate2 reads the folder as any checkpoint and its own engine says the same."""
    study = finish(tmp_path, families.build("GPT-2"), ["1.fc_in=rank:3 0.q_proj=rank:2"])
    dense = exported(study, tmp_path / "dense", "dense")
    TransformersConverter(str(dense)).convert(str(tmp_path / "ct2"))
    tokenizer = AutoTokenizer.from_pretrained(dense)
    words = tokenizer.convert_ids_to_tokens(IDS[0].tolist())
    found = ctranslate2.Generator(str(tmp_path / "ct2")).forward_batch(
        [words], return_log_probs=True
    )
    ours = AutoModelForCausalLM.from_pretrained(dense)
    plain, exact = (logits(one)[:1].log_softmax(-1) for one in (ours, rounding.exact(ours)))
    rounding.check(np.array(found), plain, exact)
