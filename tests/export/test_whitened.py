"""Whitened cuts in every form of export, and in matrices that are fused, stacked or tied."""

from __future__ import annotations

import json

import pytest
import torch

from laser_search.testing.formats import FormatContract
from search.calibration.measure import measure
from search.calibration.rows import Row
from search.cuts.composition import Composition
from search.export.base import Base
from search.export.format import Work
from search.export.formats import get_format
from search.export.patch import MOMENTS, load_edit
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from search.weights.moments import MomentStore
from search.weights.whitening import floored_root, whiten
from tasks.errors import InputError

CUTS = "0.fc_in=whitened/0.1 1.fc_out=whitened/rank:3 1.v_proj=whitened/0.1"
NEARLY_ALL = "0.fc_in=whitened/0.8 1.out_proj=whitened/0.7"


def calibrated(model, root, ids=48):
    """A cache that knows what each matrix of `model` is given on random tokens."""
    draw = torch.Generator().manual_seed(2)
    rows = [Row(tuple(torch.randint(0, ids, (9,), generator=draw).tolist())) for _ in range(40)]
    refs = [matrix.ref for matrix in find_matrices(model) if matrix.searchable]
    return FactorCache(root, inputs=measure(model, refs, rows, MomentStore(root), "c"))


class TestWhitened(FormatContract):
    """GPT-2: Conv1D, a fused weight, and a head that is tied to the embedding."""

    @pytest.fixture(params=["dense", "factored", "lora", "patch", "recipe"])
    def form(self, request):
        return get_format(request.param)

    @pytest.fixture
    def work(self, source, form, tmp_path):
        store = calibrated(source.load("cpu"), tmp_path / "factors")
        cuts = {"lora": NEARLY_ALL, "factored": CUTS.rpartition(" ")[0]}.get(form.name, CUTS)
        return Work(Base(source), Composition.parse(cuts.split()), store)


def test_a_recipe_without_its_moments_says_what_is_missing(tmp_path):
    from laser_search.testing.formats import write_model

    source = write_model(tmp_path / "model")
    store = calibrated(source.load("cpu"), tmp_path / "factors")
    work = Work(Base(source), Composition.parse(CUTS.split()), store)
    out = tmp_path / "out"
    out.mkdir()
    get_format("recipe").write(work, out)
    assert len(json.loads((out / "recipe.json").read_text())["inputs"]) == 3
    moments = list((out / "moments" / MOMENTS).glob("*.safetensors"))
    assert len(moments) == 3
    moments[0].unlink()
    with pytest.raises(InputError, match=r"lacks the second moment .* copy the whole folder"):
        load_edit(out, source, "cpu", tmp_path / "scratch")


def test_without_calibration_a_whitened_cut_is_refused_by_name(tmp_path, families):
    model = families.build("GPT-2")
    editor = Editor(model, find_matrices(model), FactorCache(tmp_path / "factors"))
    with pytest.raises(
        InputError, match=r"0\.fc_in=whitened/0\.1: kind 'whitened' depends on the inputs"
    ):
        editor.apply(Composition.parse(["0.fc_in=whitened/0.1"]))


@pytest.mark.parametrize("name", ["GPT-2", "GPT-NeoX, Pythia", "Mixtral", "Qwen 3 MoE", "BERT"])
@pytest.mark.parametrize("factored", [False, True])
def test_the_matrix_in_the_model_is_the_best_for_its_inputs(name, factored, tmp_path, families):
    """By the definition, in float64; of a cut in a fused weight or a stack, its own rows alone."""
    model = families.build(name).eval().requires_grad_(False)
    store = calibrated(model, tmp_path / "factors")
    matrices = {matrix.ref: matrix for matrix in find_matrices(model)}
    chosen = {ref.type: ref for ref in store.inputs}
    parameters = dict(model.named_parameters())
    before = {key: value.clone() for key, value in parameters.items()}
    cuts = Composition.parse([f"{ref}=whitened/rank:2" for ref in chosen.values()])
    expected = {}
    for ref in chosen.values():
        weight = matrices[ref].read(parameters[matrices[ref].parameter])
        U, S, V = whiten(weight, floored_root(store.inputs[ref].read()))
        expected[ref] = (U[:, :2] * S[:2]) @ V[:, :2].T
    editor = Editor(model, matrices.values(), store, factored=factored)
    with editor.applied(cuts):
        for ref in chosen.values() if not factored else ():
            found = matrices[ref].read(parameters[matrices[ref].parameter]).double()
            assert torch.dist(found, expected[ref]) <= 1e-5 * expected[ref].norm(), ref
        thin = model(input_ids=torch.arange(5, 15)[None]).logits
    assert all(torch.equal(parameters[key], value) for key, value in before.items())
    with Editor(model, matrices.values(), store).applied(cuts):
        whole = model(input_ids=torch.arange(5, 15)[None]).logits
    assert torch.allclose(thin, whole, atol=1e-4)
