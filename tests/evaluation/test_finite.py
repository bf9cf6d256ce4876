"""A trial that is not finite says where it ceased to be."""

from pathlib import Path

import pytest
import torch

import search.demo
from search.cuts.composition import Composition
from search.evaluation.evaluator import Questions, open_evaluator
from search.evaluation.finite import first_non_finite
from search.evaluation.predictor import NonFiniteLogits
from search.model import ModelSource
from search.study.jobs import Job
from tasks.registry import get_task

HERE = Path(search.demo.__file__).parent


def job(text: str) -> Job:
    return Job(text, Composition.parse(text.split()), text, "validation")


@pytest.fixture
def evaluator(tmp_path: Path):
    task = get_task("jsonl")
    examples = task.load(str(HERE / "questions.jsonl"))[:12]
    questions = Questions(task, {"validation": examples, "test": examples})
    return open_evaluator(ModelSource(str(HERE / "model")), questions, tmp_path / "factors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_layer_is_named(evaluator, value: float) -> None:
    model = evaluator.editor.model
    whole = evaluator.evaluate(job("2.fc_in=rho:0.1"))
    name = next(n for n, m in model.named_modules() if n.endswith("h.1.mlp.fc_out"))
    bias = model.get_submodule(name).bias
    before = bias[0].item()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    with torch.no_grad():
        bias[0] = value
    evaluator.passes.prefix.forget(list(evaluator.passes.prefix._records))
    with pytest.raises(NonFiniteLogits, match=rf"\d+ of .*; the first .* left {name}$"):
        evaluator.evaluate(job("0.fc_in=rho:0.1"))
    with torch.no_grad():
        bias[0] = before
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    evaluator.passes.prefix.forget(list(evaluator.passes.prefix._records))
    assert evaluator.evaluate(job("2.fc_in=rho:0.1")).outcomes == whole.outcomes


def test_a_finite_model_has_no_such_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    assert first_non_finite(model, lambda: model(torch.ones(1, 3))) is None
    assert first_non_finite(model, lambda: model(torch.full((1, 3), torch.inf))) == "0"
