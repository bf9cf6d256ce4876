"""How far our log-likelihoods are from those of lm-evaluation-harness: same model, same questions.

Three local YAML tasks (choices, choices before a common ending, whole texts) made from the
demonstration's questions and answered by its model, in float32 on a CPU. Exact is the harness with
the model in float64. It ends with 1 where ours are off by more than a small multiple of what the
harness's own float32 answers are (tests/exactness.py).

    pip install 'laser-search[lm-eval]' accelerate && python benchmarks/lm_eval_agreement.py
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from search.demo.study import HERE
from search.evaluation.predictor import make_predictor
from tasks.base import TokenNlls, Weighed
from tasks.registry import get_task

Rounding = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "exactness.py"))["Rounding"]
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "endings": {
        "output_type": "multiple_choice",
        "doc_to_text": "gold",
        "doc_to_choice": "{{openings}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}


def write_tasks(folder: Path, count: int = 200) -> None:
    """Write `count` questions and the three tasks that ask them."""
    lines = (HERE / "questions.jsonl").read_text().splitlines()
    questions = [json.loads(line) for line in lines][:count]
    rows = []
    for number, question in enumerate(questions):
        others = [questions[(number + step) % count] for step in (7, 31)]
        rows.append(
            {
                "prompt": question["prompt"],
                "answer": question["answer"],
                "gold": 0,
                "options": [q["answer"] for q in (question, *others)],
                "openings": [q["prompt"] for q in (question, *others)],
                "text": f"{question['prompt']} {question['answer']}",
            }
        )
    data = folder / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        head = {"task": f"demo_{name}", "dataset_path": "json", "test_split": "test"}
        files = {"dataset_kwargs": {"data_files": {"test": str(data)}}}
        (folder / f"{name}.yaml").write_text(json.dumps({**head, **files, **task}))


def harness(folder: Path, name: str, dtype: torch.dtype) -> list[float]:
    """The harness's own log-likelihoods, in the order of its requests."""
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(HERE / "model")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, device="cpu")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=[name], task_manager=manager, bootstrap_iters=0)
    return [
        value[0] if isinstance(value, tuple | list) else value
        for sample in found["samples"][name]
        for (value,) in sample["resps"]
    ]


def adapter(folder: Path, name: str) -> list[float]:
    """Ours, in the same order."""
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=torch.float32)
    predictor = make_predictor("causal", model, AutoTokenizer.from_pretrained(HERE / "model"))
    task = get_task(f"lm_eval:{name}", folder=str(folder))
    requests = [task.request(example, "causal") for example in task.load(str(folder))]
    ours: list[float] = []
    for reply in predictor.answer(predictor.prepare(requests)):
        match reply:
            case Weighed(log_likelihoods):
                ours += log_likelihoods
            case TokenNlls(nats):
                ours.append(-nats)
    return ours


def worst(found: list[float], reference: list[float], least: float = 0.0) -> str:
    """Largest relative difference, where the reference is at least `least` nats from zero."""
    pairs = [p for p in zip(found, reference, strict=True) if abs(p[1]) >= least]
    return f"{max(abs(a - b) / abs(b) for a, b in pairs):.1e} of {len(pairs)}"


def compare(folder: Path, name: str) -> bool:
    """Print the largest differences on one task; whether ours are no more than rounding."""
    ours, theirs = adapter(folder, name), harness(folder, name, torch.float32)
    exact = harness(folder, name, torch.float64)
    absolute = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(
        f"{name}: ours and theirs {worst(ours, theirs)} relative, {absolute:.1e} nats absolute; "
        f"above 0.5 nats {worst(ours, theirs, 0.5)}; from the harness in float64: "
        f"ours {worst(ours, exact)}, theirs {worst(theirs, exact)}"
    )
    far = Rounding().distance(ours, theirs, exact)
    print(
        f"{name}: ours {far.off:.1e} nats off, theirs {far.own:.1e}, allowed {far.allowed:.1e}: "
        f"{'holds' if far.holds else 'BROKEN'}"
    )
    return bool(far.holds)


def main() -> int:
    """Print two lines per task."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_tasks(Path(name))
        holds = [compare(Path(name), f"demo_{task}") for task in TASKS]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
