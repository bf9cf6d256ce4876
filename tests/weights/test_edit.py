import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from laser_search.testing.kinds import measured
from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.prune import pruned
from search.cuts.kinds.registry import KINDS
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from search.weights.edit import Editor
from search.weights.factors import FactorCache, content_key
from search.weights.matrices import find_matrices
from tasks.errors import InputError

SIZES = dict(
    vocab_size=24,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
)


def build(model_type, auto=AutoModelForCausalLM, dtype=torch.float32, **kwargs):
    torch.manual_seed(0)
    return auto.from_config(AutoConfig.for_model(model_type, **kwargs)).to(dtype).eval()


def phi3(dtype=torch.float32):
    """Fused query, key, value and gate, up: many matrices to a parameter."""
    return build("phi3", dtype=dtype, **SIZES, num_key_value_heads=1, pad_token_id=0)


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


def same(model, state):
    return all(
        torch.equal(p.view(torch.uint8), state[name].view(torch.uint8))
        for name, p in model.state_dict().items()
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    model = phi3()
    matrices = find_matrices(model)
    inputs = {matrix.ref: measured(matrix.shape[1]) for matrix in matrices}
    cache = FactorCache(tmp_path_factory.mktemp("factors"), inputs=inputs)
    return model, matrices, Editor(model, matrices, cache), cache


def reference(weight, kind, rank):
    """The edit in float64 numpy."""
    U, S, Vh = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    part = slice(0, rank) if kind == "keep-top" else slice(len(S) - rank, len(S))
    return (U[:, part] * S[part]) @ Vh[part]


@pytest.mark.parametrize("kind", ["keep-top", "keep-bottom"])
@pytest.mark.parametrize("rank", [0, 1, 5, 9, 15, 16])
@pytest.mark.parametrize("address", ["0.q_proj", "1.v_proj", "0.fc_up", "1.fc_out", "1.out_proj"])
def test_edits_are_those_of_a_float64_svd(bench, kind, rank, address):
    model, matrices, editor, _ = bench
    matrix = next(m for m in matrices if str(m.ref) == address)
    rank = min(rank, matrix.max_rank)
    parameter = model.get_parameter(matrix.parameter)
    weight = matrix.read(parameter)
    intervention = Intervention(matrix.ref, Level(RankRule("rank", rank), kind))
    with editor.applied(Composition((intervention,))):
        edited = matrix.read(parameter)
        np.testing.assert_allclose(edited.numpy(), reference(weight, kind, rank), atol=2e-6)
        if rank == matrix.max_rank:
            assert torch.equal(edited, weight)
    assert torch.equal(matrix.read(parameter), weight)


def test_zero_and_nothing_else(bench):
    model, matrices, editor, _ = bench
    before = snapshot(model)
    with editor.applied(Composition.parse(["0.k_proj=zero", "1.fc_in=0"])):
        for matrix in matrices:
            edited = matrix.read(model.get_parameter(matrix.parameter))
            original = matrix.read(before[matrix.parameter])
            zeroed = str(matrix.ref) in ("0.k_proj", "1.fc_in")
            assert torch.equal(edited, torch.zeros_like(original) if zeroed else original)
    assert same(model, before)


def interventions(draw, matrices):
    chosen = draw(st.lists(st.sampled_from(matrices), max_size=4, unique_by=lambda m: m.ref))
    made = []
    for matrix in chosen:
        kind = draw(st.sampled_from(list(KINDS)))
        rho = 0.0 if kind == "zero" else draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.8, 1.0]))
        made.append(Intervention(matrix.ref, Level(RankRule("rho", rho), kind)))
    return Composition(tuple(made))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_sequence_ends_as_from_fresh_and_undoes_to_the_byte(bench, data):
    model, matrices, editor, cache = bench
    editor.restore()  # Hypothesis may have cut the last example short
    before = snapshot(model)
    for _ in range(data.draw(st.integers(1, 4))):
        composition = interventions(data.draw, matrices)
        editor.apply(composition)
    after = snapshot(model)
    editor.restore()
    assert same(model, before)
    fresh = Editor(model, matrices, cache)
    fresh.apply(composition)
    assert same(model, after)
    fresh.restore()
    assert same(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_edited_in_float32_and_restored(tmp_path, dtype):
    model = phi3(dtype)
    matrices = find_matrices(model)
    editor = Editor(model, matrices, FactorCache(tmp_path))
    before = snapshot(model)
    matrix = next(m for m in matrices if str(m.ref) == "1.fc_in")
    parameter = model.get_parameter(matrix.parameter)
    expected = reference(matrix.read(parameter), "keep-top", 4)
    with editor.applied(Composition.parse(["1.fc_in=rank:4"])):
        edited = matrix.read(parameter)
        assert edited.dtype == dtype
        tolerance = max(1e-6, 2 * torch.finfo(dtype).eps) * np.abs(expected).max()
        np.testing.assert_allclose(edited.double().numpy(), expected, atol=tolerance)
    assert same(model, before)


def test_special_bytes_are_restored(tmp_path):
    """Negative zeros and subnormal numbers come back as they were."""
    model = phi3()
    matrix = find_matrices(model)[0]
    value = torch.full(matrix.shape, -0.0)
    value[0, 0], value[1, 1] = 1e-42, 3.0
    matrix.write(model.get_parameter(matrix.parameter), value)
    before = snapshot(model)
    with Editor(model, [matrix], FactorCache(tmp_path)).applied(
        Composition((Intervention(matrix.ref, Level(RankRule("rank", 1))),))
    ):
        assert not same(model, before)
    assert same(model, before)


def test_spectral_rules_are_applied(bench):
    model, matrices, editor, _ = bench
    matrix = next(m for m in matrices if str(m.ref) == "0.fc_out")
    parameter = model.get_parameter(matrix.parameter)
    weight = matrix.read(parameter)
    S = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    rank = RankRule("energy", 0.7).rank(matrix.max_rank, S)
    assert 1 < rank < matrix.max_rank
    with editor.applied(Composition.parse(["0.fc_out=energy:0.7"])):
        edited = matrix.read(parameter)
    np.testing.assert_allclose(edited.numpy(), reference(weight, "keep-top", rank), atol=2e-6)


def test_unknown_matrix_is_named_and_nothing_is_changed(bench):
    model, _, editor, _ = bench
    before = snapshot(model)
    with pytest.raises(InputError, match=r"no matrix 7\.fc_in"):
        editor.apply(Composition.parse(["0.fc_in=0.1", "7.fc_in=0.1"]))
    assert same(model, before)


def test_a_failure_halfway_restores(bench, monkeypatch):
    model, matrices, editor, _ = bench
    before = snapshot(model)
    original = type(matrices[0]).write
    calls = []

    def failing(self, parameter, value):
        calls.append(self)
        original(self, parameter, value)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(matrices[0]), "write", failing)
    with pytest.raises(KeyboardInterrupt):
        editor.apply(Composition.parse(["0.fc_in=0.1", "1.fc_in=0.1"]))
    assert same(model, before)


def test_shared_interventions_are_not_rebuilt(bench, monkeypatch):
    _, matrices, editor, _ = bench
    editor.apply(Composition.parse(["0.fc_in=0.1", "1.fc_in=0.1"]))
    original, written = type(matrices[0]).write, []

    def spying(self, parameter, value):
        written.append(str(self.ref))
        original(self, parameter, value)

    monkeypatch.setattr(type(matrices[0]), "write", spying)
    editor.apply(Composition.parse(["0.fc_in=0.1", "1.fc_in=0.2"]))
    assert written == ["1.fc_in"]
    editor.restore()


def test_keys_are_those_of_the_bytes_that_the_model_holds(tmp_path):
    model = phi3()
    matrices = find_matrices(model)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.down_proj.weight")[0, 0] += 1
    keys = Editor(model, matrices, FactorCache(tmp_path)).keys()
    assert keys == {m.ref: content_key(m.read(model.get_parameter(m.parameter))) for m in matrices}


def test_keys_do_not_depend_on_what_is_applied(bench):
    _, _, editor, cache = bench
    fresh = Editor(bench[0], bench[1], cache).keys()
    with editor.applied(Composition.parse(["0.fc_in=0.1", "1.q_proj=zero"])):
        assert editor.keys() == fresh


def test_damaged_factors_are_computed_again(bench):
    model, matrices, editor, cache = bench
    composition = Composition.parse(["1.out_proj=0.3"])
    with editor.applied(composition):
        expected = snapshot(model)
    path = cache.path(editor.keys()[MatrixRef(1, "out_proj")])
    data = bytearray(path.read_bytes())
    data[-16 * 16 * 4] ^= 1
    path.write_bytes(bytes(data))
    with editor.applied(composition):  # it has the rows in memory
        assert same(model, expected)
    assert not path.with_name(f"{path.name}.damaged").exists()
    with Editor(model, matrices, cache).applied(composition):
        assert same(model, expected)
    assert path.with_name(f"{path.name}.damaged").exists() and path.exists()


def test_factors_that_gc_removed_from_under_a_worker_are_computed_again(bench):
    model, matrices, editor, cache = bench
    compositions = [Composition.parse([cut]) for cut in ("1.fc_in=0.3", "1.fc_in=0.9")]
    expected = []
    for composition in compositions:
        with Editor(model, matrices, cache).applied(composition):
            expected.append(snapshot(model))
    path = cache.path(editor.keys()[MatrixRef(1, "fc_in")])
    with editor.applied(compositions[0]):
        path.unlink()
        assert same(model, expected[0])
    with editor.applied(compositions[1]):  # more ranks than it has read
        assert same(model, expected[1])
    path.unlink(missing_ok=True)
    with Editor(model, matrices, cache).applied(compositions[1]):
        assert same(model, expected[1])
    assert path.exists()


def test_shared_layers_are_refused(tmp_path):
    model = build("albert", AutoModelForMaskedLM, **SIZES, embedding_size=8)
    matrices = find_matrices(model)
    composition = Composition.parse(["0.fc_in=0.1"])
    with pytest.raises(InputError, match="serves 2 layers"):
        Editor(model, matrices, FactorCache(tmp_path)).apply(composition)


def test_offloaded_weights_are_refused(tmp_path):
    config = AutoConfig.for_model("llama", **SIZES)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    editor = Editor(model, find_matrices(model), FactorCache(tmp_path))
    with pytest.raises(InputError, match="is not in memory"):
        editor.apply(Composition.parse(["0.fc_in=0.1"]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 0.01, 0.3, 0.5, 0.9, 1]), st.data()
)
def test_pruning_keeps_the_largest(out, into, rho, data):
    entries = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    values = data.draw(st.lists(entries, min_size=out * into, max_size=out * into))
    weight = torch.tensor(values).view(out, into)
    result = pruned(weight, rho).reshape(-1)
    kept = 0 if rho == 0 else max(1, int(rho * len(values) + 1e-9))
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    expected = torch.zeros(len(values))
    for i in order[:kept]:
        expected[i] = values[i]
    assert torch.equal(result, expected)


def test_originals_beyond_the_budget_are_forgotten_and_come_back_from_the_model(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", vocab_size=48, n_embd=32, n_layer=3, n_head=4)
    model = AutoModelForCausalLM.from_config(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one = 4 * 32 * 128
    editor = Editor(model, find_matrices(model), FactorCache(tmp_path), originals_bytes=one)
    for layer in (0, 1, 2, 0):
        editor.apply(Composition.parse([f"{layer}.fc_in=rho:0.1", f"{layer}.fc_out=rho:0.5"]))
        assert len(editor._originals) == 2, "what is edited now is always kept"
    editor.restore()
    assert len(editor._originals) == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_thin_factors_give_the_product_s_answers_and_leave_the_weight(family, tmp_path):
    torch.manual_seed(0)
    sizes = {
        "gpt2": dict(vocab_size=48, n_embd=64, n_layer=2, n_head=4),
        "llama": dict(vocab_size=48, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                      intermediate_size=96),
    }[family]  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).double().eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.arange(12).view(2, 6)
    matrices, cache = find_matrices(model), FactorCache(tmp_path)
    dense, thin = Editor(model, matrices, cache), Editor(model, matrices, cache, factored=True)
    cuts = ("0.fc_in=rho:0.1 1.q_proj=rho:0.1", "0.fc_in=rho:0.2", "0.fc_in=rho:0.9")
    answers = []
    for cut in cuts:
        composition = Composition.parse(cut.split())
        with torch.no_grad(), dense.applied(composition):
            answers.append(model(ids).logits)
        thin.apply(composition)  # from the cut before, thin or dense
        with torch.no_grad():
            assert torch.allclose(model(ids).logits, answers[-1], atol=1e-6)
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        # GPT-2's q_proj is a part of a fused weight, which is written; so is a high rank.
        assert len(changed) == (cut == cuts[2] or ("q_proj" in cut and family == "gpt2"))
        thin.restore()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name])
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)
    for cut in (cuts[1], cuts[2], cuts[1], cuts[0]):
        thin.apply(Composition.parse(cut.split()))
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, answers[0], atol=1e-6)
    thin.restore()
    with torch.no_grad():
        plain = model(ids).logits
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    assert not torch.allclose(plain, answers[0], atol=1e-3)
