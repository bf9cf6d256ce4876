import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.cuts.rules import RULES, RankRule
from tasks.errors import InputError


def noise(out, into, seed=0):
    values = np.random.default_rng(seed).normal(size=(out, into))
    return np.linalg.svd(values, compute_uv=False)


@pytest.mark.parametrize(
    ("rho", "full", "kept"),
    [(0.01, 1000, 10), (0.29, 100, 29), (0.005, 64, 1), (0, 64, 0), (1, 64, 64), (0.57, 100, 57)],
)
def test_rho(rho, full, kept):
    assert RankRule("rho", rho).rank(full) == kept


def test_energy_by_hand():
    spectrum = [3.0, 2.0, 1.0]  # squares 9, 4, 1 of 14
    for fraction, kept in [
        (0, 0),
        (0.5, 1),
        (9 / 14, 1),
        (0.65, 2),
        (13 / 14, 2),
        (0.99, 3),
        (1, 3),
    ]:
        assert RankRule("energy", fraction).rank(3, spectrum) == kept


def test_energy_one_of_an_exactly_low_rank_matrix_keeps_its_rank():
    assert RankRule("energy", 1).rank(4, [5.0, 1.0, 1e-8, 0.0]) == 2


@given(st.floats(0.001, 0.999), st.integers(1, 40), st.integers(0, 99))
def test_energy_keeps_what_it_promises_and_no_more(fraction, size, seed):
    spectrum = np.sort(np.random.default_rng(seed).exponential(size=size))[::-1]
    kept = RankRule("energy", fraction).rank(size, spectrum)
    total = float((spectrum**2).sum())
    assert float((spectrum[:kept] ** 2).sum()) >= fraction * total * (1 - 1e-9)
    assert kept == 1 or float((spectrum[: kept - 1] ** 2).sum()) < fraction * total


@pytest.mark.parametrize(("shape", "share"), [((400, 400), 0.24), ((256, 1024), 1.0)])
def test_laser_rmt_keeps_noise_as_measured_on_its_code(shape, share):
    kept = RankRule("laser-rmt", 1).rank(min(shape), noise(*shape), shape)
    assert kept / min(shape) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("shape", [(400, 400), (256, 1024), (1024, 256)])
@pytest.mark.parametrize("rule", ["marchenko-pastur", "gavish-donoho"])
def test_true_edges_keep_the_signal_and_none_of_the_noise(rule, shape):
    out, into = shape
    generator = np.random.default_rng(1)
    U, _ = np.linalg.qr(generator.normal(size=(out, 5)))
    V, _ = np.linalg.qr(generator.normal(size=(into, 5)))
    edge = math.sqrt(out) + math.sqrt(into)
    signal = (U * (edge * np.array([5, 4, 3, 2.5, 2]))) @ V.T
    spectrum = np.linalg.svd(signal + generator.normal(size=shape), compute_uv=False)
    assert RankRule(rule, 1).rank(min(shape), spectrum, shape) == 5


def test_marchenko_pastur_edge_is_that_of_noise():
    """At 1.05 times the edge nothing of noise stays, at 0.95 times something does."""
    spectrum = noise(600, 900)
    assert RankRule("marchenko-pastur", 1.05).rank(600, spectrum, (600, 900)) == 1
    assert RankRule("marchenko-pastur", 0.95).rank(600, spectrum, (600, 900)) > 5


@pytest.mark.parametrize(("ratio", "omega"), [(0.05, 1.5194), (0.5, 2.1711), (1.0, 2.8582)])
def test_gavish_donoho_coefficient_is_the_published_one(ratio, omega):
    """ω(β) of Gavish and Donoho 2014, Table IV: threshold over the median."""
    shape = (int(2000 * ratio), 2000)
    for factor, kept in [(0.999, 1), (1.001, 2)]:
        spectrum = [9.0, omega * factor, 1.0, 1.0, 1.0, 0.5, 0.5]
        assert RankRule("gavish-donoho", 1).rank(7, spectrum, shape) == kept


@given(st.sampled_from(RULES), st.integers(0, 99))
def test_rank_is_within_bounds(name, seed):
    spectrum = np.sort(np.random.default_rng(seed).exponential(size=12))[::-1]
    assert 1 <= RankRule(name, 1).rank(12, spectrum, (12, 30)) <= 12


@pytest.mark.parametrize(
    ("name", "value"), [("energy", 1.1), ("laser-rmt", 0), ("gavish-donoho", math.nan), ("snr", 1)]
)
def test_meaningless_values_are_refused(name, value):
    with pytest.raises(InputError):
        RankRule(name, value)


def test_spectral_rules_say_that_they_need_the_spectrum():
    with pytest.raises(ValueError, match="needs the matrix's spectrum"):
        RankRule("energy", 0.9).rank(8)


def test_spectral_rules_in_compositions():
    texts = ["0.fc_in=energy:0.9", "1.fc_in=gavish-donoho", "2.fc_in=keep-bottom/laser-rmt:2"]
    composition = Composition.parse(texts)
    assert Composition.from_dict(composition.to_dict()) == composition
    assert Composition.parse(str(composition).split()) == composition
    refs = [MatrixRef(layer, "fc_in") for layer in range(3)]
    spectrum = [10.0, 1.0, 1.0, 1.0]
    effect = composition.effect(
        dict.fromkeys(refs, 4), dict.fromkeys(refs, spectrum), dict.fromkeys(refs, (4, 8))
    )
    assert effect == "0.fc_in=keep-top:1 1.fc_in=keep-top:1 2.fc_in=keep-bottom:1"
