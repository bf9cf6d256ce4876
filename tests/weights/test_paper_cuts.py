"""LASER's own cuts: its low rank, its pruning, and the whole of a fused weight."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from typer.testing import CliRunner

import search.demo
from cluster.cli import app
from search.config import parse_config
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.demo.study import HERE
from search.plan import make_plan
from search.sections import SpaceConfig
from search.space import Space
from search.strategies.singles import screened
from search.study.identity import Digests, Identity
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.fused import fused_notice, whole_weights, widened
from search.weights.matrices import find_matrices
from search.weights.selection import laser_triple
from tasks.errors import InputError

DEMO = Path(search.demo.__file__).parent
SIZES = {"vocab_size": 40, "n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 16}
CONFIGS = {
    "gptj": transformers.GPTJConfig(**SIZES, rotary_dim=4),
    "gpt2": transformers.GPT2Config(**SIZES),
    "roberta": transformers.RobertaConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=40, max_position_embeddings=20,
    ),
}  # fmt: skip
MAKERS = {
    "gptj": transformers.GPTJForCausalLM,
    "gpt2": transformers.GPT2LMHeadModel,
    "roberta": transformers.RobertaForMaskedLM,
}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {name: make(CONFIGS[name]) for name, make in MAKERS.items()}


def by_hand(weight, rho, iterations):
    """What LASER's code computes, with the seed that ours sets."""
    torch.manual_seed(0)
    rank = int(min(weight.shape) * rho)
    U, S, V = torch.svd_lowrank(weight.detach().float(), q=rank, niter=iterations)
    return U @ torch.diag(S) @ V.T


@pytest.mark.parametrize(("name", "iterations"), [("gptj", 2), ("roberta", 20)])
def test_the_models_hold_lasers_own_low_rank(models, name, iterations, tmp_path):
    model = models[name]
    matrices = find_matrices(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    exact = laser_triple("fc_in", 1, 7.5, matrices)
    editor = Editor(model, matrices, FactorCache(tmp_path))
    (matrix,) = [m for m in matrices if str(m.ref) == "1.fc_in"]
    original = before[matrix.parameter]
    with editor.applied(exact.as_laser(model.config.model_type)):
        found = model.get_parameter(matrix.parameter).clone()
    assert torch.equal(found, by_hand(original, 0.25, iterations))
    assert not any(tmp_path.rglob("*.safetensors")), "no factors are needed"
    with editor.applied(exact):
        best = model.get_parameter(matrix.parameter).clone()
    distance = torch.dist(found, best) / best.norm()
    assert distance > (0.1 if iterations == 2 else 0.001), "it is not the best of its rank"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_kind_says_how_a_matrix_is_cut_and_reads_back():
    for text in ("1.fc_in=svd-lowrank/0.1", "0.fc_out=svd-lowrank-20/rank:3"):
        assert str(Intervention.parse(text)) == text
        one = Composition.parse([text])
        assert Composition.from_dict(one.to_dict()) == one
    cut, same = (Composition.parse([f"1.fc_in=svd-lowrank/{r}"]) for r in ("0.01", "0.02"))
    full = {i.matrix: 24 for i in cut.interventions}
    assert cut.effect(full) == same.effect(full) == "1.fc_in=svd-lowrank:1"
    assert Composition.parse(["1.fc_in=svd-lowrank/0"]).effect(full) == "1.fc_in=zero:0"
    with pytest.raises(InputError, match="takes a rho or a rank, not a energy"):
        Intervention.parse("1.fc_in=svd-lowrank/energy:0.9")
    with pytest.raises(InputError, match=r"1\.fc_in=.*'prune-paper' takes a rho"):
        Intervention.parse("1.fc_in=prune-paper/rank:3")


@pytest.mark.parametrize("rate", [3, 9, 9.5])
def test_lasers_pruning_zeroes_one_entry_more_than_the_fraction(models, rate, tmp_path):
    model = models["gptj"]
    matrices = find_matrices(model)
    parameter = model.transformer.h[0].mlp.fc_in.weight
    sizes = sorted(parameter.detach().abs().flatten().tolist())
    alpha = sizes[int(rate * 0.1 * len(sizes))]
    expected = torch.where(parameter.detach().abs() <= alpha, 0.0, parameter.detach())
    editor = Editor(model, matrices, FactorCache(tmp_path))
    ours = Composition.parse([f"0.fc_in=prune/{1 - rate / 10}"])
    with editor.applied(ours.as_laser(model.config.model_type)):
        assert torch.equal(parameter.detach(), expected)
    with editor.applied(ours):
        count = parameter.numel()
        assert int((parameter == 0).sum()) == count - int(count * (1 - rate / 10) + 1e-9)
    assert int((expected == 0).sum()) == int(rate * 0.1 * count) + 1


def test_a_study_may_cut_as_laser_does(tmp_path):
    raw = {
        "model": {"path": str(HERE / "model")},
        "task": {"name": "jsonl", "data": str(HERE / "questions.jsonl")},
        "space": {"groups": ["mlp"]},
        "factors": str(tmp_path),
        "products": "svd-lowrank",
    }
    space = make_plan(parse_config(raw, "test")).space
    assert {i.kind for i in screened(space)} == {"svd-lowrank"}
    (alone, *_), group = space.sites, space.groups[0]
    for site in (alone, group):
        level = Level.parse("svd-lowrank/0.1")
        cut = space.cut([(site, level)])
        assert {i.kind for i in cut.interventions} == {"svd-lowrank"}
        assert space.choices(cut) == [(site, level)]
    assert space.choices(Composition.parse([f"{alone.name}=0.1"])) is None


def test_a_study_does_not_go_on_with_another_kind_of_cut():
    then = Digests("w", "c", "e", "1", {"products": "dense"})
    identity = Identity.new(then)
    identity.check(Digests("w", "c", "e", "2", {"products": "factored"}), accept=True)
    with pytest.raises(InputError, match="would not be comparable"):
        identity.check(Digests("w", "c", "e", "2", {"products": "svd-lowrank"}), accept=True)


def test_the_whole_of_a_fused_weight_is_one_matrix(models, tmp_path):
    model = models["gpt2"]
    matrices = find_matrices(model)
    named = laser_triple("k_proj", 1, 8.0, matrices)
    whole = widened(named, 0.2, matrices)
    assert str(whole) == "1.attn.c_attn=rank:4"
    assert str(widened(laser_triple("attn", 1, 8.0, matrices), 0.2, matrices)) == (
        "1.out_proj=rank:4 1.attn.c_attn=rank:4"
    )
    (notice,) = fused_notice(named, "k_proj", matrices)
    assert "--fused whole" in notice and "transformer.h.1.attn.c_attn" in notice
    assert not fused_notice(laser_triple("mlp", 1, 8.0, matrices), "mlp", matrices)
    wholes = set(whole_weights(matrices).values())
    editor = Editor(model, [*matrices, *wholes], FactorCache(tmp_path))
    weight = model.transformer.h[1].attn.c_attn.weight
    before = weight.detach().clone()
    U, S, Vh = torch.linalg.svd(before.double(), full_matrices=False)
    expected = (U[:, :4] * S[:4]) @ Vh[:4]
    with editor.applied(whole):
        torch.testing.assert_close(weight.detach(), expected.float(), atol=1e-6, rtol=1e-4)
    with editor.applied(named):
        assert torch.equal(weight[:, :24], before[:, :24]), "only its own rows are cut"
        assert torch.linalg.matrix_rank(weight[:, 24:48].double(), rtol=1e-5) == 4
    assert torch.equal(weight.detach(), before)


def test_models_without_fused_weights_are_cut_as_named(models):
    matrices = find_matrices(models["gptj"])
    named = laser_triple("k_proj", -1, 8.0, matrices)
    assert widened(named, 0.2, matrices) == named
    assert not whole_weights(matrices)


def test_which_models_take_twenty_iterations(models):
    kinds = {
        name: Level.parse(0.1).as_laser(model.config.model_type).kind
        for name, model in models.items()
    }
    assert kinds == {"gptj": "svd-lowrank", "gpt2": "svd-lowrank", "roberta": "svd-lowrank-20"}


@pytest.fixture(scope="module")
def fused_folder(tmp_path_factory):
    """A GPT-2 with the demo's tokenizer."""
    folder = tmp_path_factory.mktemp("fused")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "model")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "n_positions": 64}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(folder)
    lines = (DEMO / "questions.jsonl").read_text().splitlines()[:6]
    (folder / "q.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("options", "name", "noticed"),
    [
        (["--fused", "named"], "1.k_proj=rank:2", True),
        (["--fused", "whole"], "1.attn.c_attn=rank:2", False),
        (
            ["--fused", "whole", "--products", "svd-lowrank"],
            "1.attn.c_attn=svd-lowrank/rank:2",
            False,
        ),
    ],
)
def test_the_command_cuts_as_it_is_told(fused_folder, tmp_path, options, name, noticed):
    command = ["evaluate", str(fused_folder), "--task", "jsonl", "--data",
               str(fused_folder / "q.jsonl"), "--lname", "k_proj", "--lnum", "1", "--rate", "9",
               "--factors", str(tmp_path), "--json", *options]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["scores"]) == ["baseline", name]
    assert any("--fused whole" in notice for notice in found["notices"]) == noticed


def test_the_space_is_cut_exactly_by_default(models):
    space = Space.build(SpaceConfig(max_interventions=1), find_matrices(models["gptj"]))
    assert {i.kind for i in screened(space)} == {"keep-top"}
