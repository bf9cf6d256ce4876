"""A device is waited for once for the answers of a part, however many batches it takes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.model import ModelSource
from search.study.jobs import Job
from tasks.registry import get_task

WAITING = {
    torch.Tensor.cpu: "cpu",
    torch.Tensor.item: "item",
    torch.Tensor.tolist: "tolist",
    torch.Tensor.numpy: "numpy",
    torch.Tensor.__bool__: "bool",
    torch.Tensor.nonzero: "nonzero",
    torch.unique: "unique",
    torch.nonzero: "nonzero",
}
"""Calls whose result the host can only have when the device has finished what came before."""


class Waits(TorchFunctionMode):
    """Counts calls that wait for the device, those of this program alone."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING and not _from_transformers():
            self.seen[WAITING[func]] += 1
        return func(*args, **(kwargs or {}))


def _from_transformers() -> bool:
    """Whether transformers asks, such as for a mask that hides nothing."""
    frame = sys._getframe(2)
    return "transformers" in frame.f_code.co_filename


@pytest.fixture(scope="module")
def waits(tmp_path_factory) -> Callable[[int], tuple[int, Counter[str]]]:
    task = get_task("jsonl")
    examples = task.load(str(HERE / "questions.jsonl"))[:60]
    factors = tmp_path_factory.mktemp("factors")

    def asked(tokens: int) -> tuple[int, Counter[str]]:
        evaluator: Evaluator = open_evaluator(
            ModelSource(str(HERE / "model")),
            Questions(task, {"validation": examples}),
            factors,
            Hosting(tokens_per_batch=tokens),
        )
        job = Job("t", Composition.parse(["1.fc_in=0.1"]), "e", "validation")
        evaluator.evaluate(job)  # records activations, and tries what the model supports
        ((_, prepared),) = evaluator._prepare("validation")
        with Waits() as found:
            evaluator.evaluate(job)
        return len(prepared.batches), found.seen

    return asked


def test_more_batches_are_no_more_waits(waits) -> None:
    few, once = waits(4096)
    many, often = waits(60)
    assert many > 3 * few, f"{few} and {many} batches: too few to tell"
    assert once, "nothing was counted, though the answers must reach the host"
    assert often == once
