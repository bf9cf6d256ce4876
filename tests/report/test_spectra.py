"""Measures of spectra against numpy and random matrices, and the files of the command."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import search.demo
from cluster.cli import app
from search.model import ModelSource
from search.origin import WeightOrigin
from search.report.spectra import snr_table, write_spectra
from search.report.spectra_data import real_cosines, spectra_of_model
from search.weights.matrices import find_matrices
from search.weights.spectra import Spectrum, cosines, random_cosines

MODEL = str(Path(search.demo.__file__).parent / "model")


def _of(weight):
    values = np.linalg.svd(weight, compute_uv=False)
    return Spectrum("0.fc_in", "m", "a.b.c", weight.shape, values)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(scale=0.3, size=(400, 900))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (7, 7)])
def test_energy_error_and_cosines_are_those_of_truncated_products(shape):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=shape)
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    spectrum, inputs = _of(weight), rng.normal(size=(11, shape[1]))
    mean = cosines(values, inputs @ right.T)
    for rank in range(len(values) + 1):
        cut = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert spectrum.error[rank] == pytest.approx(np.linalg.norm(weight - cut), abs=1e-9)
        energy = np.linalg.norm(cut) ** 2 / np.linalg.norm(weight) ** 2
        assert spectrum.energy[rank] == pytest.approx(energy)
        if rank:
            whole, part = inputs @ weight.T, inputs @ cut.T
            sizes = np.linalg.norm(whole, axis=1) * np.linalg.norm(part, axis=1)
            assert mean[rank - 1] == pytest.approx(((whole * part).sum(axis=1) / sizes).mean())


def test_ranks_of_matrices_that_are_known():
    identity = _of(np.eye(12))
    assert identity.effective_rank == pytest.approx(12)
    assert identity.stable_rank == pytest.approx(12)
    one = _of(np.outer(np.arange(1.0, 9), np.arange(1.0, 6)))
    assert one.effective_rank == pytest.approx(1, abs=1e-6)
    assert one.stable_rank == pytest.approx(1)
    nothing = _of(np.zeros((4, 3)))
    assert (nothing.effective_rank, nothing.stable_rank) == (0, 0)


def test_noise_is_known_as_noise_and_a_signal_stands_out(noise):
    spectrum = _of(noise)
    assert spectrum.noise == pytest.approx(0.3, rel=0.02)
    assert spectrum.kept("marchenko-pastur") <= 1
    assert spectrum.kept("laser-rmt") > 50  # its threshold is no edge of noise
    at = np.linspace(0, spectrum.values[0] * 1.05, 4000)
    assert np.trapezoid(spectrum.bulk(at), at) == pytest.approx(1, abs=0.01)
    counts, edges = np.histogram(spectrum.values, bins=12, density=True)
    middle = (edges[:-1] + edges[1:]) / 2
    assert np.abs(spectrum.bulk(middle) - counts).max() < 0.12 * counts.max()
    rng = np.random.default_rng(2)
    signal = noise + 2 * rng.normal(size=(400, 3)) @ rng.normal(size=(3, 900))
    assert _of(signal).kept("marchenko-pastur") in (3, 4)


def test_the_snr_table_has_the_scanners_numbers(noise):
    """laserRMT's own arithmetic, written out."""
    values = np.linalg.svd(noise, compute_uv=False)
    low, high = np.quantile(values, [0.25, 0.75])
    edge = (high - low) / 1.349 * (1 + math.sqrt(400 / 900))
    ratio = values[values > edge].sum() / values[values <= edge].sum() / values[0]
    assert snr_table([_of(noise)]) == {"a.b.c": {"snr": pytest.approx(ratio), "type": "b.c"}}
    facts = _of(noise).facts()
    assert "snr" not in facts, "one name would stand for two quantities"
    assert facts["scanner_snr"] == pytest.approx(ratio)
    assert facts["signal_to_noise"] == pytest.approx(ratio * values[0])
    only = Spectrum("0.fc_in", "m", "", (3, 3), np.ones(3))
    assert json.loads(json.dumps(snr_table([only]))) == {"0.fc_in": {"snr": None, "type": "fc_in"}}


def test_real_inputs_are_those_that_the_model_computes(tmp_path):
    """Against a forward pass with hooks of its own and explicit products."""
    data = tmp_path / "q.jsonl"
    line = Path(search.demo.__file__).with_name("questions.jsonl").read_text().splitlines()[0]
    data.write_text(f"{line}\n")
    from search.sections import TaskConfig

    source = ModelSource(MODEL)
    found = real_cosines(source, TaskConfig(name="jsonl", data=str(data)), ["1.fc_out"])
    model, tokenizer = source.load(), source.tokenizer()
    seen = []
    name = next(m.module for m in find_matrices(model) if str(m.ref) == "1.fc_out")
    model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    item = json.loads(line)
    ids = tokenizer(f"{item['prompt']} {item['answer']}", return_tensors="pt")["input_ids"]
    model(ids)
    x = seen[0].reshape(-1, seen[0].shape[-1]).double()
    weight = model.get_submodule(name).weight.double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    for rank in (1, 5, 30):
        cut = (left[:, :rank] * values[:rank]) @ right[:rank]
        expected = torch.cosine_similarity(x @ weight.T, x @ cut.T, dim=1)
        # The program may leave the answer's last token out of its forward pass.
        means = [float(expected[:n].mean()) for n in (len(x), len(x) - 1)]
        assert min(abs(found["1.fc_out"][rank - 1] - m) for m in means) < 1e-5


def test_spectra_of_a_model_are_those_of_its_weights():
    source = ModelSource(MODEL)
    found = spectra_of_model(source, ["2.fc_in", "0.attn"], None)
    assert [s.name for s in found] == ["0.q_proj", "0.k_proj", "0.v_proj", "0.out_proj", "2.fc_in"]
    matrix = next(m for m in find_matrices(source.skeleton()) if str(m.ref) == "2.fc_in")
    weight = WeightOrigin(source).read(matrix).double().numpy()
    np.testing.assert_allclose(found[-1].values, np.linalg.svd(weight, compute_uv=False), atol=1e-9)


def test_the_command_on_a_model_and_on_a_cache_agree(tmp_path):
    from search.weights.factors import FactorCache

    source = ModelSource(MODEL)
    origin = WeightOrigin(source)
    with FactorCache(tmp_path / "factors") as cache:
        for matrix in find_matrices(source.skeleton()):
            if str(matrix.ref) in ("0.fc_in", "2.fc_in"):
                weight = origin.read(matrix)
                cache.ensure(weight, cache.key(weight), f"{MODEL}:{matrix.ref}")
    tables = []
    for name, words in (
        ("a", [MODEL, "--address", "*.fc_in", "--factors", str(tmp_path / "factors")]),
        ("b", ["--factors", str(tmp_path / "factors")]),
    ):
        out = tmp_path / name
        run = CliRunner().invoke(app, ["spectra", *words, "--out", str(out), "--json"])
        assert run.exit_code == 0, run.output
        files = json.loads(run.stdout)["files"]
        assert all(Path(path).stat().st_size > 500 or path.endswith("json") for path in files)
        assert (out / "figures" / "2.fc_in.png").exists()
        page = (out / "spectra.html").read_text()
        assert page.count("<svg") == 4 + len(pd.read_parquet(out / "spectra.parquet"))
        assert "http://" not in page.replace("http://www.w3.org/", "")
        tables.append(pd.read_parquet(out / "spectra.parquet").set_index("matrix"))
    first, second = tables
    assert set(second.index) == {"0.fc_in", "2.fc_in"} < set(first.index)
    np.testing.assert_allclose(
        first.loc["2.fc_in", "spectrum"], second.loc["2.fc_in", "spectrum"], rtol=1e-6
    )
    assert first.loc["2.fc_in", "marchenko-pastur_rank"] > 0


def test_bad_input_is_one_sentence(tmp_path):
    for words, expected in (
        (["spectra"], "give a model"),
        (["spectra", "--factors", str(tmp_path / "none")], "does not exist"),
        (["spectra", MODEL, "--address", "9.fc_in"], "matches no matrix"),
    ):
        run = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "o")])
        assert run.exit_code != 0 and expected in str(run.exception)


def test_random_cosines_grow_to_one():
    found = random_cosines(np.array([3.0, 2.0, 1.0, 0.0]))
    assert (np.diff(found) >= 0).all() and found[-1] == pytest.approx(1)


@pytest.mark.parametrize("values", [np.zeros(8), np.ones(1), np.array([2.0, 1e-30, 0.0])])
def test_degenerate_matrices_have_figures_and_rows(values, tmp_path):
    spectrum = Spectrum("0.fc_in", "m", "", (8, len(values)), values)
    written = write_spectra([spectrum], tmp_path)
    assert written, "the table at least was to be written"
    assert all(path.stat().st_size > 0 for path in written)
    assert len(pd.read_parquet(tmp_path / "spectra.parquet")) == 1


def test_the_numerical_rank_is_that_of_a_cut_matrix():
    torch.manual_seed(0)
    cut = (torch.randn(40, 7) @ torch.randn(7, 60)).double()
    values = torch.linalg.svdvals(cut.float().double()).numpy()
    found = Spectrum("0.fc_in", "m", "", (40, 60), values)
    assert found.numerical_rank == 7 == found.facts()["numerical_rank"]
    assert Spectrum("0.fc_in", "m", "", (3, 3), np.zeros(3)).numerical_rank == 0


def test_without_figures_the_table_is_there_at_once(tmp_path):
    words = ["spectra", MODEL, "--address", "0.fc_in", "--out", str(tmp_path / "s")]
    run = CliRunner().invoke(app, [*words, "--no-figures", "--json"])
    assert run.exit_code == 0, run.output
    names = {Path(path).name for path in json.loads(run.stdout)["files"]}
    assert names == {"spectra.html", "spectra.parquet", "snr.json"}
    assert {path.name for path in (tmp_path / "s").iterdir()} == names
    page = (tmp_path / "s" / "spectra.html").read_text()
    assert "0.fc_in" in page and "<svg" not in page and "Matrix by matrix" not in page
    assert "numerical rank" in page
