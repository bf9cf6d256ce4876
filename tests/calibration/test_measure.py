"""Second moments against inputs caught by hooks, for linear maps in every kind of clothes."""

import signal

import pytest
import torch
from torch import nn

import search.calibration.measure as measuring
from search.calibration.measure import Inputs, measure
from search.calibration.operands import Unit
from search.calibration.rows import batches
from search.weights.matrices import find_matrices
from search.weights.moments import MomentStore
from search.weights.whitening import floored_root, whiten
from tasks.errors import InputError

PLAIN = [
    "GPT-2",
    "GPT-NeoX, Pythia",
    "Llama 1-3",
    "BERT",
    "T5",
    "Flan-T5, T5 1.1",
    "ModernBERT",
    "BART",
    "Falcon multi-query",
]
MIXTURES = ["Mixtral", "Qwen 3 MoE", "GPT-OSS", "Llama 4", "Switch Transformers"]


def by_hooks(model, rows):
    """Σ x xᵀ / tokens of what each linear module is given, by its weight's name."""
    caught, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":

            def hook(module, arguments, name=name):
                flat = arguments[0].reshape(-1, arguments[0].shape[-1])
                caught.setdefault(f"{name}.weight", []).append(flat.double())

            handles.append(module.register_forward_pre_hook(hook))
    run(model, rows)
    for handle in handles:
        handle.remove()
    every = {name: torch.cat(found) for name, found in caught.items()}
    return {name: (x.T @ x / len(x), len(x)) for name, x in every.items()}


def run(model, rows):
    with torch.no_grad():
        for inputs in batches(rows, torch.device("cpu")):
            model.base_model(**inputs)


def measured(model, rows, tmp_path, **options):
    matrices = find_matrices(model)
    refs = [m.ref for m in matrices if m.searchable]
    store = MomentStore(tmp_path / "factors")
    found = measure(model, refs, rows, store, "c", **options)
    assert list(found) == refs
    return found, {m.ref: m for m in matrices}


@pytest.mark.parametrize("family", PLAIN)
def test_moments_are_of_what_each_module_is_given(family, make_model, make_rows, tmp_path):
    model = make_model(family)
    rows = make_rows(model)
    expected = by_hooks(model, rows)
    found, matrices = measured(model, rows, tmp_path)
    for ref, one in found.items():
        second, tokens = expected[matrices[ref].parameter]
        assert one.tokens == tokens, ref
        assert torch.allclose(one.read(), second, rtol=1e-10, atol=1e-14), ref


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_measured_by_what_they_receive(family, make_model, make_rows, tmp_path):
    """Against the experts' own loop, whose products are caught where Python calls them."""
    model = make_model(family)
    rows = make_rows(model)
    found, matrices = measured(model, rows, tmp_path)
    expected = by_hooks(model, rows) | by_calls(model, rows)
    experts = [ref for ref in found if ref.expert is not None]
    assert experts
    for ref in experts:
        place = matrices[ref]
        at = place.view.expert
        name = place.parameter if at is None else f"{place.parameter}[{at}]"
        if name not in expected:
            assert found[ref].tokens == 0, ref
            continue
        second, tokens = expected[name]
        assert found[ref].tokens == tokens, ref
        assert torch.allclose(found[ref].read(), second, rtol=1e-5, atol=1e-8), ref


def by_calls(model, rows):
    """As `by_hooks` for stacks of experts, in the eager loop of transformers."""
    stacks = {n: p for n, p in model.named_parameters() if p.dim() == 3}
    if not stacks:
        return {}
    for config in {
        id(m.config): m.config for m in model.modules() if hasattr(m, "config")
    }.values():
        config._experts_implementation = "eager"
    caught = {}

    def note(rows, weight):
        for name, stack in stacks.items():
            each = stack[0].nbytes
            offset = weight.data_ptr() - stack.data_ptr()
            if not 0 <= offset < stack.nbytes:
                continue
            if weight.dim() == 3:
                for expert, part in enumerate(rows):
                    real = part[part.any(-1)]
                    caught.setdefault(f"{name}[{expert}]", []).append(real.double())
            else:
                flat = rows.reshape(-1, rows.shape[-1])
                caught.setdefault(f"{name}[{offset // each}]", []).append(flat.double())

    class Catching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (nn.functional.linear, torch.matmul, torch.bmm, torch.Tensor.matmul) or (
                getattr(func, "__name__", "") == "__matmul__"
            ):
                note(args[0], args[1])
            return func(*args, **(kwargs or {}))

    with Catching():
        run(model, rows)
    every = {name: torch.cat(found) for name, found in caught.items()}
    return {name: (x.T @ x / len(x), len(x)) for name, x in every.items() if len(x)}


def test_equal_inputs_are_measured_once(make_model, make_rows):
    """q, k and v; gate and up; whatever part of the model is searched."""
    model = make_model("Llama 1-3")
    inputs = Inputs.find(model, make_rows(model)[:1])
    units = {str(ref): str(unit) for ref, unit in inputs.of.items() if ref.layer == 1}
    own = "model.layers.1."
    assert units == {
        "1.q_proj": f"{own}self_attn.q_proj.weight",
        "1.k_proj": f"{own}self_attn.q_proj.weight",
        "1.v_proj": f"{own}self_attn.q_proj.weight",
        "1.out_proj": f"{own}self_attn.o_proj.weight",
        "1.fc_in": f"{own}mlp.gate_proj.weight",
        "1.fc_up": f"{own}mlp.gate_proj.weight",
        "1.fc_out": f"{own}mlp.down_proj.weight",
    }


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX, Pythia", "Mixtral"])
def test_the_error_of_a_whitened_cut_is_what_the_measured_inputs_say(
    family, make_model, make_rows, tmp_path
):
    """Σ of the cut squares, for parts of fused weights, transposed ones and experts."""
    model = make_model(family)
    rows = make_rows(model, 60)
    found, matrices = measured(model, rows, tmp_path)
    parameters = dict(model.named_parameters())
    for ref, one in found.items():
        weight = matrices[ref].read(parameters[matrices[ref].parameter]).double()
        U, S, V = whiten(weight, floored_root(one.read()))
        gone = weight - (U[:, :5] * S[:5]) @ V[:, :5].T
        error = float(torch.trace(gone @ one.read() @ gone.T))
        assert error == pytest.approx(float((S[5:] ** 2).sum()), rel=1e-6), ref


def test_groups_under_a_budget_give_the_same_bits(make_model, make_rows, tmp_path, monkeypatch):
    model = make_model("Llama 1-3")
    rows = make_rows(model)
    whole, _ = measured(model, rows, tmp_path / "whole")
    passes = []
    own = measuring._sums
    monkeypatch.setattr(measuring, "_sums", lambda *a: passes.append(a[1]) or own(*a))
    small, _ = measured(model, rows, tmp_path / "small", budget_bytes=8 * 56**2)
    assert len(passes) > 2
    assert {r: m.digest for r, m in small.items()} == {r: m.digest for r, m in whole.items()}


def test_what_is_there_is_not_measured_again(make_model, make_rows, tmp_path, monkeypatch):
    model = make_model("Llama 1-3")
    rows = make_rows(model)
    first, _ = measured(model, rows, tmp_path)
    monkeypatch.setattr(measuring, "_sums", lambda *a: pytest.fail("a pass more"))
    again, _ = measured(model, rows, tmp_path)
    assert again == first


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import search.calibration.measure as measuring
from search.calibration.measure import measure
from search.calibration.rows import Row
from search.weights.matrices import find_matrices
from search.weights.moments import MomentStore
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
torch.set_num_threads(1)
config = LlamaConfig(vocab_size=48, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                     intermediate_size=24, pad_token_id=0)
model = LlamaForCausalLM(config).eval()
rows = [Row(tuple(range(5, 12))), Row(tuple(range(9, 20)))]
refs = [m.ref for m in find_matrices(model)]
root, limit = Path(sys.argv[1]), int(sys.argv[2])
passes = 0
own = measuring._sums
def sums(*arguments):
    global passes
    passes += 1
    if passes > limit:
        print(passes - 1, len(list(root.rglob("*.safetensors"))), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return own(*arguments)
measuring._sums = sums
found = measure(model, refs, rows, MomentStore(root), "c", budget_bytes=8 * 24**2)
print(passes, len({one.name for one in found.values()}))
"""


def test_a_kill_loses_the_group_that_was_in_hand_and_nothing_else(tmp_path, forked):
    """A process that kills itself in its third pass, then one that ends the work."""

    def go(limit):
        done = forked.run(KILLED, tmp_path, limit)
        return done.returncode, done.stdout.split(), done.stderr

    code, said, complaint = go(2)
    assert code == -signal.SIGKILL, complaint
    stored = int(said[1])
    assert said[0] == "2" and stored >= 2
    code, said, complaint = go(100)
    assert code == 0, complaint
    passes, inputs = map(int, said)
    assert inputs == 8
    assert passes <= inputs - stored


def test_a_matrix_that_never_multiplies_is_refused(make_model, make_rows, tmp_path):
    model = make_model("Llama 1-3")
    model.model.layers[1].forward = lambda hidden, **_: hidden
    with pytest.raises(InputError, match=r"layers\.1.*is not used in a forward pass"):
        measured(model, make_rows(model), tmp_path)


def test_what_is_not_finite_is_refused(make_model, make_rows, tmp_path):
    model = make_model("Llama 1-3")
    model.model.layers[0].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(InputError, match="are not finite"):
        measured(model, make_rows(model), tmp_path)


def test_names_of_units_say_the_expert():
    assert str(Unit("a.b", 3)) == "a.b[3]"
    assert str(Unit("a.b")) == "a.b"
