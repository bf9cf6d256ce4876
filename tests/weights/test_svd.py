import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search.cuts.kinds.svd_lowrank import lowrank_product
from search.weights.svd import decompose
from tasks.errors import InputError


def with_spectrum(out, into, spectrum, seed=0):
    generator = np.random.default_rng(seed)
    k = len(spectrum)
    U, _ = np.linalg.qr(generator.normal(size=(out, k)))
    V, _ = np.linalg.qr(generator.normal(size=(into, k)))
    return torch.tensor((U * spectrum) @ V.T, dtype=torch.float32)


def check_exact(weight):
    """Against numpy's SVD in float64: spectrum, product, and orthonormality of all vectors."""
    found = decompose(weight)
    k = min(weight.shape)
    U, S, V = (part.double().numpy() for part in (found.U, found.S, found.V))
    assert (U.shape, S.shape, V.shape) == ((weight.shape[0], k), (k,), (weight.shape[1], k))
    reference = weight.double().numpy()
    scale = np.linalg.norm(reference)
    expected = np.linalg.svd(reference, compute_uv=False)
    assert np.abs(S - expected).max() <= 1e-7 * max(expected[0], 1e-30)
    assert np.linalg.norm((U * S) @ V.T - reference) <= 1e-6 * scale
    assert np.abs(U.T @ U - np.eye(k)).max() < 1e-6
    assert np.abs(V.T @ V - np.eye(k)).max() < 1e-6
    assert (np.diff(S) <= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (24, 24), (20, 70), (70, 20)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_float64(shape, dtype):
    torch.manual_seed(0)
    check_exact(torch.randn(shape).to(dtype))


@pytest.mark.parametrize("decades", [1, 3, 4, 5, 6, 8, 12])
def test_ill_conditioned_matrices_lose_nothing(decades):
    check_exact(with_spectrum(40, 90, np.logspace(0, -decades, 40)))
    check_exact(with_spectrum(90, 40, np.logspace(0, -decades, 40)))


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(6, 9),
        torch.ones(9, 6),
        torch.eye(7),
        torch.full((5, 5), 1e-30),
        torch.full((4, 8), 1e30),
        with_spectrum(30, 30, [3.0, 2.0]),
    ],
    ids=["zero", "rank-1", "identity", "tiny", "huge", "rank-2"],
)
def test_degenerate_matrices_have_whole_bases(weight):
    check_exact(weight)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(-8, 8), st.booleans()
)
def test_any_matrix(out, into, seed, exponent, repeated):
    torch.manual_seed(seed)
    weight = torch.randn(out, into) * 10**exponent
    check_exact(weight[: (out + 1) // 2].repeat(2, 1) if repeated else weight)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 14), st.integers(2, 14), st.integers(0, 2**31), st.data())
def test_truncation_is_the_best_of_its_rank(out, into, seed, data):
    """Eckart-Young: the error is the norm of the dropped spectrum, and no other does better."""
    torch.manual_seed(seed)
    weight = torch.randn(out, into)
    rank = data.draw(st.integers(1, min(out, into)))
    found = decompose(weight)
    best = (found.U[:, :rank] * found.S[:rank]) @ found.V[:, :rank].T
    tail = np.linalg.svd(weight.double().numpy(), compute_uv=False)[rank:]
    error = torch.linalg.norm(best - weight)
    assert float(error) == pytest.approx(float(np.linalg.norm(tail)), abs=1e-5)
    other = torch.randn(out, rank) @ torch.randn(rank, into)
    scale = (other * weight).sum() / (other * other).sum()
    assert error <= torch.linalg.norm(scale * other - weight) + 1e-5


def test_same_bytes_give_the_same_factors():
    torch.manual_seed(0)
    weight = torch.randn(33, 65)
    first, second = decompose(weight), decompose(weight.clone())
    assert all(
        torch.equal(a, b)
        for a, b in [(first.U, second.U), (first.S, second.S), (first.V, second.V)]
    )


PEAK = """
from pathlib import Path

import torch
from search.weights.svd import decompose

def own(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

torch.set_num_threads(1)
weight = torch.randn(4000, 400)
decompose(weight[:500])  # what the solver takes once
Path("/proc/self/clear_refs").write_text("5")  # forget the peak
before = own("VmRSS")
decompose(weight)
print((own("VmHWM") - before) / (8 * weight.numel()))
"""


def test_two_matrices_in_float64_are_the_most_that_is_held(forked):
    """A tall matrix and its left vectors; and a tenth of one for its Gram matrix, and more."""
    done = forked.run(PEAK)
    assert done.returncode == 0, done.stderr
    assert 1.9 < float(done.stdout) < 2.9


def test_sign_is_fixed():
    torch.manual_seed(0)
    weight = torch.randn(20, 30)
    U = decompose(weight).U
    assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()
    assert torch.allclose(decompose(-weight).U, U, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    weight = torch.zeros(3, 4)
    weight[1, 2] = value
    with pytest.raises(InputError, match="1 values that are not finite"):
        decompose(weight)


@pytest.mark.parametrize("iterations", [2, 20])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_the_papers_product_is_torchs(shape, iterations):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    state = torch.random.get_rng_state()
    found = lowrank_product(weight, 4, iterations)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(weight, q=4, niter=iterations)
    assert torch.equal(found, U @ torch.diag(S) @ V.T)
    assert torch.equal(lowrank_product(weight, 4, iterations), found)
    best = decompose(weight)
    exact = (best.U[:, :4] * best.S[:4]) @ best.V[:, :4].T
    # More iterations come nearer to the best matrix, from which two are far on a flat spectrum.
    assert torch.dist(found, exact) / exact.norm() > (0.2 if iterations == 2 else 0)
    with pytest.raises(ValueError, match="rank"):
        lowrank_product(weight, 0)
