"""The maths of whitened truncation, in float64."""

import pytest
import torch

from search.weights.svd import decompose
from search.weights.whitening import FLOOR, floored_root, whiten

SHAPES = [(12, 8), (8, 12), (9, 9), (40, 64), (64, 40)]


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(width, tokens, seed=1):
    """Inputs [tokens, width] of very different scales, and their second moment."""
    inputs = normal((tokens, width), seed) @ normal((width, width), seed + 1)
    inputs = inputs * torch.logspace(0, -3, width, dtype=torch.float64)
    return inputs, inputs.T @ inputs / tokens


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_on_the_inputs_is_the_sum_of_the_cut_squares(shape):
    weight = normal(shape, 0)
    inputs, second = moment(shape[1], 500)
    U, S, V = whiten(weight, floored_root(second))
    for rank in range(1, min(shape)):
        kept = (U[:, :rank] * S[:rank]) @ V[:, :rank].T
        error = ((inputs @ (weight - kept).T) ** 2).sum() / len(inputs)
        expected = (S[rank:] ** 2).sum()
        assert abs(float(error - expected)) <= 1e-6 * float(expected), rank


@pytest.mark.parametrize("shape", SHAPES)
def test_no_matrix_of_the_rank_does_better_on_the_inputs(shape):
    """As by the definition, with the symmetric root and its inverse; the plain cut is worse."""
    weight = normal(shape, 0)
    _, second = moment(shape[1], 500)
    values, vectors = torch.linalg.eigh(second)
    half = (vectors * values.sqrt()) @ vectors.T
    back = (vectors / values.sqrt()) @ vectors.T
    P, sigma, Qh = torch.linalg.svd(weight @ half, full_matrices=False)
    U, S, V = whiten(weight, floored_root(second))
    plain = decompose(weight)
    for rank in (1, 3, min(shape) - 1):
        own = (U[:, :rank] * S[:rank]) @ V[:, :rank].T
        textbook = ((P[:, :rank] * sigma[:rank]) @ Qh[:rank]) @ back
        assert torch.dist(own, textbook) <= 1e-8 * weight.norm(), rank

        def error(cut):
            gone = weight - cut
            return float(torch.trace(gone @ second @ gone.T))

        other = (plain.U[:, :rank] * plain.S[:rank]) @ plain.V[:, :rank].T
        assert error(own) <= error(other.double())


@pytest.mark.parametrize("tokens", [3, 8, 500])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_ranks_give_the_matrix_back(shape, tokens):
    """Also where fewer tokens than inputs leave the second moment singular."""
    weight = normal(shape, 0)
    _, second = moment(shape[1], tokens)
    U, S, V = whiten(weight, floored_root(second))
    assert torch.dist((U * S) @ V.T, weight) <= 1e-7 * weight.norm()
    assert bool((S.diff() <= 0).all())
    assert torch.dist(U.T @ U, torch.eye(min(shape), dtype=U.dtype)) <= 1e-7


def test_eigenvalues_below_the_floor_are_raised_to_it():
    second = torch.diag(torch.tensor([3.0, 1.0, 1e-30, 0.0], dtype=torch.float64))
    root = floored_root(second)
    values = torch.linalg.eigvalsh(root @ root.T)
    floor = FLOOR * 1.0
    assert values.tolist() == pytest.approx([floor, floor, 1.0, 3.0])


def test_without_a_token_the_cut_is_the_plain_one():
    weight = normal((6, 5), 0)
    _, S, _ = whiten(weight, floored_root(torch.zeros(5, 5, dtype=torch.float64)))
    assert torch.allclose(S.float(), decompose(weight).S)


def test_a_matrix_of_low_rank_has_triples_that_are_zero():
    weight = normal((9, 2), 0) @ normal((2, 7), 1)
    _, second = moment(7, 100)
    U, S, V = whiten(weight, floored_root(second))
    assert torch.dist((U * S) @ V.T, weight) <= 1e-7 * weight.norm()
    assert bool(torch.isfinite(V).all())


def test_inputs_that_are_alike_and_inputs_that_are_zero_are_no_failure():
    """What breaks a Cholesky factor on real data."""
    inputs = normal((50, 6), 3)
    inputs[:, 1] = inputs[:, 0]
    inputs[:, 2] = 0
    second = inputs.T @ inputs / 50
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(second)
    weight = normal((4, 6), 4)
    U, S, V = whiten(weight, floored_root(second))
    assert torch.dist((U * S) @ V.T, weight) <= 1e-7 * weight.norm()
    kept = (U[:, :2] * S[:2]) @ V[:, :2].T
    error = ((inputs @ (weight - kept).T) ** 2).sum() / 50
    # The floor gives the two directions that no input has a share of their own in the sum.
    assert float(error) == pytest.approx(float((S[2:] ** 2).sum()), rel=1e-6)
