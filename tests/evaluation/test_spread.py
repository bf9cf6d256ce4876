"""A model over several places, as accelerate lays it: the answers, edits and reuse of a whole one.

The GPUs that this is for are stood in for by host memory and a disk: the hooks are the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model

import search.demo
from search.cuts.composition import Composition
from search.evaluation.evaluator import Evaluator, Questions
from search.evaluation.predictor import make_predictor
from search.model import ModelSource
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.errors import InputError
from tasks.registry import get_task

HERE = Path(search.demo.__file__).parent
SOURCE = ModelSource(str(HERE / "model"))
CUTS = ("1.fc_in=0.2", "2.fc_out=0.1 1.fc_out=0.4", "2.fc_in=0.01")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FactorCache:
    return FactorCache(tmp_path_factory.mktemp("factors"))


def evaluator_of(model, cache: FactorCache) -> Evaluator:
    matrices = find_matrices(model)
    passes = ForwardPasses.of(model, matrices)
    predictor = make_predictor(SOURCE.head, model, SOURCE.tokenizer(), passes=passes)
    task = get_task("jsonl")
    examples = task.load(str(HERE / "questions.jsonl"), None)[:96]
    questions = Questions(task, {"validation": examples})
    return Evaluator(Editor(model, matrices, cache), predictor, questions, passes)


def evaluate(evaluator: Evaluator, cuts: str):
    composition = Composition.parse(cuts.split())
    found = evaluator.evaluate(Job(f"trial-{cuts}", composition, cuts, "validation"))
    return found.score, [(o.example_id, o.prediction, o.log_probability) for o in found.outcomes]


def split(tmp_path: Path):
    """The first block on disk, the rest in memory, by the hooks that several GPUs get."""
    model = SOURCE.load()
    names = {name for name, _ in model.named_modules()}
    blocks = next(n for n in ("transformer.h", "model.layers", "gpt_neox.layers") if n in names)
    stack, _, _ = blocks.rpartition(".")
    places = {name: "cpu" for name, _ in model.named_children() if name != stack}
    for name, _ in model.get_submodule(stack).named_children():
        if f"{stack}.{name}" != blocks:
            places[f"{stack}.{name}"] = "cpu"
    for number in range(len(model.get_submodule(blocks))):
        places[f"{blocks}.{number}"] = "disk" if number == 0 else "cpu"
    return dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))


def test_the_answers_edits_and_reuse_are_those_of_a_whole_model(cache, tmp_path: Path) -> None:
    model = split(tmp_path)
    assert any(parameter.is_meta for parameter in model.parameters()), "nothing is elsewhere"
    whole, parts = evaluator_of(SOURCE.load(), cache), evaluator_of(model, cache)
    for cuts in ("", *CUTS, ""):
        assert evaluate(parts, cuts) == evaluate(whole, cuts)
    assert not parts.passes.prefix.refused
    assert parts.passes.prefix.boundaries == whole.passes.prefix.boundaries != ()
    expected = dict(SOURCE.load().named_parameters())
    here = {n: p for n, p in parts.editor.model.named_parameters() if not p.is_meta}
    assert here, "expected some parameters in memory, else nothing is compared"
    assert [n for n, p in here.items() if not torch.equal(p, expected[n])] == []


def test_a_matrix_that_is_not_in_memory_is_refused(cache, tmp_path: Path) -> None:
    evaluator = evaluator_of(split(tmp_path), cache)
    with pytest.raises(InputError, match=r"0\.fc_in is not in memory"):
        evaluate(evaluator, "0.fc_in=0.1")


def test_loading_over_what_there_is(cache) -> None:
    """Without GPUs accelerate puts all into host memory; the answers stay."""
    spread = SOURCE.load("spread")
    assert evaluate(evaluator_of(spread, cache), CUTS[0]) == evaluate(
        evaluator_of(SOURCE.load(), cache), CUTS[0]
    )
