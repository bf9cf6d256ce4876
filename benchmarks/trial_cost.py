"""What a trial costs, against the way of LASER's released code.

    python benchmarks/trial_cost.py naive --sst2 sst2-dev.tsv --counterfact counterfact.json
    python benchmarks/trial_cost.py layers --sst2 sst2-dev.tsv
    python benchmarks/trial_cost.py memory [--trials 10000]
    python benchmarks/trial_cost.py peak --sst2 sst2-dev.tsv [--budget 0.25]
    python benchmarks/trial_cost.py thin --sst2 sst2-dev.tsv
    python benchmarks/trial_cost.py whole [--model ./sst2-run/bert-sst2 --sst2 sst2-dev.tsv]

`naive`: a 12-layer BERT-base-shaped classifier on SST-2 sentences and a 12-layer 768-wide causal
model with 50,257 words on CounterFact prompts, both random. The baseline loads the checkpoint,
takes `torch.svd_lowrank` with two iterations, and asks one question at a time through every layer
and the whole head. Single interventions are drawn one per layer; each is timed in both ways, in
turn, and the parts that make the difference one by one. `layers`: a trial at each layer over a
full pass of the same batches, and the arithmetic of it as a share of what matmul reaches on the
same shapes. `memory`: the size of a worker over many trials of the demo. `peak`: the most that a
worker of BERT-base's shape ever takes, against its model and the budgets it is given. `whole`: a
real study of 200 trials by the command line, against what the naive way would take for as many.
`thin`: trials that cut every MLP matrix, with two thin factors against dense products, by rho.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
import yaml
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

import search.demo
from search.config import read_config
from search.cuts.composition import Composition
from search.demo.study import demo_config
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.model import ModelSource
from search.plan import make_plan
from search.results import Study
from search.reuse.activations import Room
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job
from tasks.base import Choose, Classify, Complete, Example, Task
from tasks.registry import get_task

HERE = Path(search.demo.__file__).parent
LAYERS = 12
RHO = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)


@dataclass(frozen=True)
class Case:
    """A random model, its questions, and the classes that load it as anyone would."""

    name: str
    folder: Path
    task: Task
    examples: list[Example]
    auto: Any

    def evaluator(self, scratch: Path, room: Room | None = None) -> Evaluator:
        """Ours, as a worker builds it."""
        questions = Questions(self.task, {"validation": self.examples})
        source = ModelSource(str(self.folder))
        return open_evaluator(source, questions, scratch, Hosting(room=room))


def classifier(folder: Path, data: Path, count: int) -> Case:
    """BERT-base's shape, without its training."""
    task = get_task("sst2")
    examples = task.load(str(data))[:count]
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator([e.prompt for e in examples], vocab_size=30522, show_progress=False)
    folder.mkdir()
    words.save_model(str(folder))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_hidden_layers=LAYERS)).save_pretrained(folder)
    return Case("BERT classifier", folder, task, examples, AutoModelForSequenceClassification)


def language_model(folder: Path, data: Path, count: int) -> Case:
    """GPT-2's shape, without its training."""
    task = get_task("counterfact")
    examples = task.load(str(data))[:count]
    words = ByteLevelBPETokenizer()
    texts = [f"{e.prompt} {e.answer}" for e in task.load(str(data))]
    words.train_from_iterator(texts, vocab_size=50257, special_tokens=["<|endoftext|>"])
    PreTrainedTokenizerFast(
        tokenizer_object=words._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=LAYERS)).save_pretrained(folder)
    return Case("causal LM", folder, task, examples, AutoModelForCausalLM)


def job(layer: int, kind: str, rho: float) -> Job:
    """A single intervention."""
    composition = Composition.parse([f"{layer}.{kind}=rho:{rho}"])
    return Job(str(composition), composition, str(composition), "validation")


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def naive(
    case: Case, asked: Job, instead: Callable[[torch.Tensor, int], torch.Tensor] | None = None
) -> dict[str, Any]:
    """One trial as LASER's code does it: seconds of load, SVD and passes, and log-probabilities.

    `instead` gives the edited matrix in place of `lowrank`, which is still timed, so that answers
    can be compared: `lowrank` draws its directions at random and misses the best rank r.
    """
    load_s, model = timed(lambda: case.auto.from_pretrained(case.folder).eval())
    tokenizer = ModelSource(str(case.folder)).tokenizer()
    svd_s = 0.0
    for cut in asked.composition.interventions:
        matrix = next(m for m in _matrices(model) if m.ref == cut.matrix)
        parameter = model.get_parameter(matrix.parameter)
        weight = matrix.read(parameter)
        rank = cut.rule.rank(min(weight.shape))
        seconds, value = timed(partial(lowrank, weight, rank))
        matrix.write(parameter, instead(weight, rank) if instead else value)
        svd_s += seconds
    ask = _classify if case.auto is AutoModelForSequenceClassification else _complete
    with torch.no_grad():
        pass_s, answers = timed(
            lambda: [
                ask(model, tokenizer, case.task.request(e, _head(case))) for e in case.examples
            ]
        )
    return {"load": load_s, "svd": svd_s, "pass": pass_s, "answers": answers}


def lowrank(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """LASER's approximation of a matrix: a randomised SVD with two power iterations."""
    U, S, V = torch.svd_lowrank(weight, q=rank, niter=2)
    return U @ torch.diag(S) @ V.T


def best_rank(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """The truncated SVD itself, in float64."""
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank] @ Vh[:rank]).to(weight.dtype)


def _head(case: Case) -> Any:
    return "classifier" if case.auto is AutoModelForSequenceClassification else "causal"


def _classify(model: Any, tokenizer: Any, request: Any) -> list[float]:
    assert isinstance(request, Classify)
    logits = model(**tokenizer(request.text, return_tensors="pt")).logits[0]
    return logits.log_softmax(-1).tolist()


def _complete(model: Any, tokenizer: Any, request: Any) -> list[float]:
    assert isinstance(request, Complete | Choose)
    answer = tokenizer(request.answer)["input_ids"]
    ids = tokenizer(request.prompt)["input_ids"] + answer
    scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    first = len(ids) - len(answer) - 1
    said = scores[first:-1].argmax(-1).tolist() == answer
    return [sum(scores[first + n, token].item() for n, token in enumerate(answer)), float(said)]


def _matrices(model: Any) -> Any:
    from search.weights.matrices import find_matrices

    return find_matrices(model)


def without_shortcuts(evaluator: Evaluator) -> Evaluator:
    """Ours with batches alone: no reuse, whole last block, all logits."""
    scorer = getattr(evaluator._predictor, "scorer", evaluator._predictor)
    scorer.passes = evaluator.passes = ForwardPasses()
    scorer._calibrated = scorer.ends_early = True
    scorer.ends_early = scorer.picks_before_head = False
    return evaluator


def compare_with_naive(case: Case, scratch: Path, rounds: int) -> dict[str, Any]:
    """Trials at `rounds` layers spread evenly, each in every way, in turn."""
    generator = torch.Generator().manual_seed(0)
    layers = [LAYERS * (2 * n + 1) // (2 * rounds) for n in range(rounds)]
    evaluators = {
        "batches": without_shortcuts(case.evaluator(scratch)),
        "batches + scored positions": case.evaluator(scratch, Room(0)),
        "all (with prefix reuse)": case.evaluator(scratch),
    }
    for evaluator in evaluators.values():
        evaluator.evaluate(Job("baseline", Composition(), "", "validation"))
    seconds: dict[str, list[float]] = {name: [] for name in ("load", "svd", "pass", *evaluators)}
    worst = 0.0
    for layer in layers:
        kind = ("fc_in", "fc_out")[int(torch.randint(2, (1,), generator=generator))]
        asked = job(layer, kind, RHO[int(torch.randint(len(RHO), (1,), generator=generator))])
        found = {}
        for name, evaluator in evaluators.items():
            evaluator.editor.apply(asked.composition)  # factors computed before the clock starts
            evaluator.close()
            spent, found[name] = timed(partial(evaluator.evaluate, asked))
            seconds[name].append(spent)
        edited = edited_weight(evaluator, asked)
        plain = naive(case, asked, lambda weight, rank, edited=edited: edited)
        for name in ("load", "svd", "pass"):
            seconds[name].append(plain[name])
        for outcome, answer in zip(
            found["all (with prefix reuse)"].outcomes, plain["answers"], strict=True
        ):
            worst = max(worst, min(abs(outcome.log_probability - value) for value in answer))
    mean = {name: fmean(values) for name, values in seconds.items()}
    whole = mean["load"] + mean["svd"] + mean["pass"]
    return {
        "case": case.name,
        "questions": len(case.examples),
        "layers": layers,
        "seconds": {name: round(value, 3) for name, value in {**mean, "naive": whole}.items()},
        "ratio": {name: round(whole / mean[name], 2) for name in ("pass", *evaluators)},
        "worst difference of a log-probability": worst,
    }


def edited_weight(evaluator: Evaluator, asked: Job) -> torch.Tensor:
    """The matrix that a job's one intervention left in the model."""
    (cut,) = asked.composition.interventions
    model = evaluator.editor.model
    matrix = next(m for m in _matrices(model) if m.ref == cut.matrix)
    return matrix.read(model.get_parameter(matrix.parameter))


def by_layer(case: Case, scratch: Path, repeats: int) -> dict[str, Any]:
    """A trial at every layer over a full pass of the same batches, and its arithmetic."""
    ours, whole = case.evaluator(scratch), case.evaluator(scratch, Room(0))
    full_s: list[float] = []
    trial_s: list[list[float]] = [[] for _ in range(LAYERS)]
    for evaluator in (ours, whole):
        evaluator.evaluate(Job("baseline", Composition(), "", "validation"))
        for layer in range(LAYERS):  # factors computed and read before the clock starts
            evaluator.editor.apply(job(layer, "fc_in", 0.05).composition)
    for _ in range(repeats):
        for layer in range(LAYERS):
            asked = job(layer, "fc_in", 0.05)
            full_s.append(timed(partial(whole.evaluate, asked))[0])
            trial_s[layer].append(timed(partial(ours.evaluate, asked))[0])
    full = min(full_s)  # the least disturbed, on a machine that others share
    times = [min(values) for values in trial_s]
    ratios = [value / full for value in times]
    batches = [b for _, p in ours._prepared["validation"] for b in p.batches]
    peak = matmul_rate([(b.tokens, b.input_ids.shape[1]) for b in batches])
    work = [must_do(batches, layer) for layer in range(LAYERS)]
    return {
        "full pass s": round(full, 3),
        "trial over full pass, by layer": [round(r, 3) for r in ratios],
        "mean": round(fmean(ratios), 3),
        "last quarter": round(fmean(ratios[-LAYERS // 4 :]), 3),
        "matmul GFLOP/s": round(peak / 1e9, 1),
        "efficiency by layer": [
            round(flop / seconds / peak, 3) for flop, seconds in zip(work, times, strict=True)
        ],
        "efficiency": round(sum(work) / sum(times) / peak, 3),
    }


def must_do(batches: list[Any], layer: int, width: int = 768) -> float:
    """Floating-point operations of BERT-base's blocks from `layer` on; one row in the last block.

    Padding is not counted. Attention: scores and their product with values.
    """
    total = 0.0
    for batch in batches:
        lengths = batch.attention_mask.sum(-1).tolist()
        tokens, rows = sum(lengths), len(lengths)
        attention = sum(4 * n * n * width for n in lengths)
        block = 2 * 12 * width * width * tokens + attention
        last = 2 * width * width * (2 * tokens + 10 * rows) + 4 * width * tokens
        total += (LAYERS - 1 - layer) * block + last
    return total


def matmul_rate(shapes: list[tuple[int, int]]) -> float:
    """Operations per second of torch.matmul on a block's four weight shapes, over all batches."""
    weights = [torch.randn(o, i).T for i, o in ((768, 768), (768, 3072), (3072, 768))]
    work = seconds = 0.0
    for tokens, _ in shapes:
        for weight in weights:
            inputs = torch.randn(tokens, weight.shape[0])
            multiply = partial(torch.matmul, inputs, weight)
            seconds += min(timed(multiply)[0] for _ in range(5))
            work += 2 * tokens * weight.numel()
    return work / seconds


def memory(scratch: Path, trials: int) -> dict[str, Any]:
    """Resident size of a process over random trials of the demo, and whether bytes came back."""
    from search.config import read_config, write_config
    from search.demo.study import demo_config
    from search.plan import make_plan

    write_config(demo_config(scratch, trials), scratch / "study.yaml")
    plan = make_plan(read_config(scratch / "study.yaml"))
    parts = {"validation": plan.split.validation[:16]}
    hosting = Hosting(room=Room(2**22))
    evaluator = open_evaluator(plan.source, Questions(plan.task, parts), scratch / "f", hosting)
    before = {n: p.detach().clone() for n, p in evaluator.editor.model.named_parameters()}
    sizes = {}
    process = psutil.Process()
    for number in range(1, trials + 1):
        drawn = plan.space.cut(plan.space.draw(random.Random(f"m/{number}")))
        evaluator.evaluate(Job(str(number), drawn, str(drawn), "validation"))
        if number in (trials // 10, trials // 2, trials):
            sizes[number] = round(process.memory_info().rss / 2**20, 1)
    evaluator.close()
    same = all(torch.equal(p, before[n]) for n, p in evaluator.editor.model.named_parameters())
    return {"resident MiB after trials": sizes, "restored to the bit": same}


def peak(scratch: Path, data: Path, budget: float, count: int) -> dict[str, Any]:
    """The most that a process takes over trials of every matrix, and what it may take."""
    case = classifier(scratch / "bert", data, count)
    process = psutil.Process()
    start = process.memory_info().rss
    source = ModelSource(str(case.folder))
    questions = Questions(case.task, {"validation": case.examples})
    room = Room(int(budget * 2**30))
    evaluator = open_evaluator(source, questions, scratch / "f", Hosting(room=room))
    evaluator.editor._originals_bytes = evaluator.editor._products._memory._budget_bytes = (
        room.device_bytes
    )
    evaluator.evaluate(Job("baseline", Composition(), "", "validation"))
    most = [0, 0, 0]
    matrices = [m for m in _matrices(evaluator.editor.model) if m.searchable]
    for matrix in matrices:  # factors are computed before what a trial takes is measured
        asked = Composition.parse([f"{matrix.ref}=rho:0.1"])
        evaluator.editor.apply(asked)
    for number, rho in enumerate((0.9, 0.1, 0.05)):
        for matrix in matrices:
            asked = Composition.parse([f"{matrix.ref}=rho:{rho}"])
            evaluator.evaluate(Job(str(asked), asked, str(asked), "validation"))
            most[number] = max(most[number], process.memory_info().rss)
    model = sum(p.numel() * p.element_size() for p in evaluator.editor.model.parameters())
    return {
        "matrices, three rho each": len(matrices),
        "MiB": {
            "before": start >> 20,
            "model": model >> 20,
            "each of three budgets: activations, factors, originals": room.device_bytes >> 20,
            "most while running, by rho": [value >> 20 for value in most],
        },
        "over what was there, model and budgets": round(
            max(most) / (start + model + 3 * room.device_bytes), 3
        ),
    }


def thin(scratch: Path, data: Path, count: int, repeats: int = 3) -> dict[str, Any]:
    """Time of a trial with `products: factored` over one with dense products, by rho."""
    case = classifier(scratch / "bert", data, count)
    source = ModelSource(str(case.folder))
    questions = Questions(case.task, {"validation": case.examples})
    evaluators = [
        open_evaluator(source, questions, scratch / "f", Hosting(room=Room(0), factored=factored))
        for factored in (False, True)
    ]
    worst, ratios = 0.0, {}
    for rho in (0.01, 0.05, 0.1, 0.2, 0.3, 0.4):
        texts = [
            f"{layer}.{kind}=rho:{rho}" for layer in range(LAYERS) for kind in ("fc_in", "fc_out")
        ]
        composition = Composition.parse(texts)
        asked = Job(str(rho), composition, str(rho), "validation")
        seconds: list[list[float]] = [[], []]
        for _ in range(repeats):
            found = []
            for place, evaluator in enumerate(evaluators):
                evaluator.editor.apply(composition)  # the passes are compared, not the products
                spent, evaluation = timed(partial(evaluator.evaluate, asked))
                seconds[place].append(spent)
                found.append([outcome.log_probability for outcome in evaluation.outcomes])
            worst = max(worst, *(abs(a - b) for a, b in zip(*found, strict=True)))
        ratios[str(rho)] = round(min(seconds[1]) / min(seconds[0]), 3)
    return {"factored over dense, by rho": ratios, "largest difference, nats": worst}


def whole(scratch: Path, model: Path | None, data: Path | None, trials: int) -> dict[str, Any]:
    """Wall time of a study by the command line against the naive way's projected time."""
    settings = demo_config(scratch, trials).model_dump(mode="json")
    if model is not None and data is not None:
        settings["model"] = {"path": str(model.resolve())}
        settings["task"] = {"name": "sst2", "data": str(data.resolve())}
    (scratch / "study.yaml").write_text(yaml.safe_dump(settings))
    study = scratch / "study"
    words = [sys.executable, "-m", "cluster.cli", "launch", str(scratch / "study.yaml")]
    words += ["--out", str(study), "--quiet"]
    run = partial(subprocess.run, words, check=True, stdout=subprocess.DEVNULL)
    wall_s, _ = timed(run)
    frame = Study.open(study).trials_frame()
    ranked = frame[frame["state"] == "complete"]
    ranked = ranked.sort_values(["score", "log_loss"], ascending=[False, True])
    places = [*range(5), *range(5, len(ranked), max(1, len(ranked) // 5))]
    plan = make_plan(read_config(study / "study.yaml"))
    auto = AutoModelForCausalLM if model is None else AutoModelForSequenceClassification
    case = Case("", Path(plan.source.path), plan.task, list(plan.split.validation), auto)
    seconds, scores = [], []
    for _, row in ranked.iloc[places].iterrows():
        asked = Job("", Composition.parse(str(row["composition"]).split()), "", "validation")
        score = {"ours": round(float(row["score"]), 4)}
        for name, instead in (("svd_lowrank", None), ("exact SVD", best_rank)):
            found = naive(case, asked, instead)
            score[name] = round(fmean(map(is_right, case.examples, found["answers"])), 4)
            seconds.append(found["load"] + found["svd"] + found["pass"])
        scores.append(score)
    per_trial = fmean(seconds)
    return {
        "trials": trials,
        "wall s": round(wall_s, 1),
        "naive, s per trial": round(per_trial, 2),
        "naive projected s": round(per_trial * trials, 1),
        "ratio": round(per_trial * trials / wall_s, 2),
        "scores, our best five first": scores,
        "our winner is best with the exact SVD, one by one, too": max(
            s["exact SVD"] for s in scores
        )
        == scores[0]["exact SVD"],
    }


def is_right(example: Example, answer: list[float]) -> bool:
    """Whether a naive answer is right: the label is likeliest, or every token was said."""
    if example.label is None:
        return bool(answer[1])
    return answer[example.label] == max(answer)


def main() -> None:
    """Run one measurement and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["naive", "layers", "memory", "peak", "thin", "whole"])
    parser.add_argument("--sst2", type=Path)
    parser.add_argument("--counterfact", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--budget", type=float, default=0.25, help="GiB, of each of three")
    parser.add_argument("--model", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        factors = scratch / "factors"
        if asked.what == "memory":
            print(json.dumps(memory(scratch, asked.trials or 10_000), indent=1))
        if asked.what == "peak":
            print(json.dumps(peak(scratch, asked.sst2, asked.budget, asked.count), indent=1))
        if asked.what == "thin":
            print(json.dumps(thin(scratch, asked.sst2, asked.count), indent=1))
        if asked.what == "whole":
            found = whole(scratch, asked.model, asked.sst2, asked.trials or 200)
            print(json.dumps(found, indent=1))
        if asked.what == "layers":
            case = classifier(scratch / "bert", asked.sst2, asked.count)
            print(json.dumps(by_layer(case, factors, 2), indent=1))
        if asked.what == "naive":
            for make, data in ((classifier, asked.sst2), (language_model, asked.counterfact)):
                if data is not None:
                    case = make(scratch / make.__name__, data, asked.count)
                    print(json.dumps(compare_with_naive(case, factors, asked.rounds), indent=1))


if __name__ == "__main__":
    main()
