"""What a backward pass shows of linear maps is the gradient that autograd gives their weights."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from search.cuts.refs import MatrixRef
from search.evaluation.gradients import (
    TokenGradient,
    WholeGradient,
    gradients_of,
    noting_calls,
)
from search.weights.matrices import Matrix
from search.weights.views import View


class Odd(nn.Module):
    """Linear maps that are called once, twice, written over, or read without a call."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = nn.Linear(6, 8), nn.Linear(8, 8)
        self.fused, self.read = Conv1D(12, 8), nn.Linear(12, 5)

    def forward(self, x):
        x = self.first(x)
        x += 1  # as residuals are added
        x = self.twice(self.twice(x).tanh())
        return self.read.weight @ self.fused(x).tanh()[..., None]


def matrix(module, name, view):
    weight = module.get_submodule(name).weight
    shape = view.shape(weight.shape)
    return Matrix(MatrixRef(0, name), f"{name}.weight", shape, weight.dtype, name, "", True, view)


MATRICES = {
    "the first": ("first", View()),
    "called twice": ("twice", View()),
    "fused and transposed": ("fused", View(transposed=True, offset=4, width=4)),
    "read without a call": ("read", View()),
}


@pytest.mark.parametrize("name", MATRICES)
def test_it_is_the_gradient_of_the_weight(name):
    model = Odd()
    own = matrix(model, *MATRICES[name])
    rows = torch.randn(3, 7, 6)
    parameter = model.get_parameter(own.parameter)
    (expected,) = torch.autograd.grad(model(rows).square().sum(), parameter)
    total, kinds = torch.zeros(own.shape), []

    def take(told, gradient):
        assert told is own
        total.add_(gradient.whole())
        kinds.append(type(gradient))

    with noting_calls(model.children()) as called, torch.inference_mode():
        model(rows)
    with gradients_of(model, [own], called, take):
        model(rows).square().sum().backward()
    assert torch.allclose(total, own.read(expected), rtol=1e-4, atol=1e-4)
    formed = WholeGradient if own.module == "read" else TokenGradient
    assert kinds == [formed] * (2 if own.module == "twice" else 1)
    assert all(one.requires_grad and one.grad is None for one in model.parameters())


@pytest.mark.parametrize("tokens", [3, 300])
def test_few_tokens_and_many_say_the_same(tokens):
    torch.manual_seed(0)
    slopes, inputs = torch.randn(8, tokens), torch.randn(12, tokens)
    by_tokens, whole = TokenGradient(slopes, inputs), WholeGradient(slopes @ inputs.T)
    U, V, W = torch.randn(7, 8), torch.randn(7, 12), torch.randn(8, 12)
    assert torch.allclose(by_tokens.along(U, V), whole.along(U, V), rtol=1e-4, atol=1e-3)
    assert ("_whole" in by_tokens.__dict__) == (tokens == 300), "of few tokens none is formed"
    assert by_tokens.inner(W).item() == pytest.approx(whole.inner(W).item(), rel=1e-4)
