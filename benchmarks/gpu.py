"""Every figure that needs a GPU, in one command.

    python benchmarks/gpu.py --out gpu                  # the standard set; minutes on an H100
    python benchmarks/gpu.py --out gpu --steps svd oom  # some steps of it
    python benchmarks/gpu.py --out gpu --tiny           # the same steps on a CPU, in seconds

The models are random, in bfloat16, and made on the device: nothing is downloaded. Every step is
written to ``results.json`` as soon as it is done, and is not done again; a step that fails is
recorded with its error, and the others go on. ``report.md`` is the table. `--tiny` shows that every
step runs; its figures mean nothing.

Steps: `card` (what the device reaches), `svd` (the program's decomposition, other methods, matrices
that break solvers), `trial-MODEL` (a trial by the layer of its first cut, its parts, the share of
torch.matmul, LASER's own way, exactness of prefix reuse, memory), `oom` (a batch that does not
fit), `generation`, `variants` (what several trials in one pass could win, see variants.py),
`workers-MODEL` (processes that share the device).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from search.cuts.composition import Composition
from search.durable import write_text
from search.evaluation.evaluator import Evaluator, Questions
from search.evaluation.predictor import make_predictor
from search.reuse.activations import GIB, Room
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import Matrix, all_matrices
from search.weights.memory import BUDGET_BYTES
from search.weights.svd import decompose
from tasks.base import Complete, Completed, Example, Generate, Generated, Head, Outcome, Reply
from tasks.errors import InputError

RHO = 0.1
ROOM = Room(8 * GIB)
"""What boundaries of 1,000 prompts before five layers of a model of 4,096 take, and some."""
PROMPT_TOKENS, NEW_TOKENS = 64, 15


@dataclass(frozen=True)
class Shape:
    """A model by its configuration, `tiny` in its place on a CPU."""

    config: Any
    tiny: Any
    dtype: torch.dtype = torch.bfloat16


def _tiny_llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=512,
    )


SHAPES = {
    "llama-2-7b": Shape(LlamaConfig(vocab_size=32000), _tiny_llama()),
    "gpt-j-6b": Shape(
        GPTJConfig(),
        GPTJConfig(
            n_embd=64,
            n_layer=4,
            n_head=4,
            rotary_dim=16,
            vocab_size=512,
            bos_token_id=1,
            eos_token_id=1,
        ),
    ),
    "smollm2-135m": Shape(
        LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49152,
            tie_word_embeddings=True,
        ),
        _tiny_llama(),
        torch.float32,
    ),
}


class Words:
    """A task of random words: the next one, or those that greedy decoding puts after them."""

    name, metric = "words", "accuracy"
    heads: frozenset[Head] = frozenset({"causal"})

    def __init__(self, new_tokens: int = 0) -> None:
        self.new_tokens = new_tokens

    def load(self, source: str | None, revision: str | None = None) -> list[Example]:
        """Nothing is read; see `questions`."""
        return []

    def request(self, example: Example, head: Head) -> Complete | Generate:
        """The next word, or a text."""
        if self.new_tokens:
            return Generate(example.prompt, self.new_tokens)
        return Complete(example.prompt, f" {example.answer}")

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Whether it is said."""
        assert isinstance(reply, Completed | Generated)
        score = reply.greedy if isinstance(reply, Completed) else 0.0
        return Outcome(example.id, example.group, score, reply.log_likelihood, reply.text)


def questions(count: int, vocabulary: int) -> list[Example]:
    """Prompts of 64 random words, each a token, and a word that might follow."""
    draw = random.Random(0)

    def word() -> str:
        return f"w{draw.randrange(2, vocabulary)}"

    prompts = [" ".join(word() for _ in range(PROMPT_TOKENS)) for _ in range(count)]
    return [Example(str(n), str(n), prompt, word()) for n, prompt in enumerate(prompts)]


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A token for every word."""
    words = {"<unk>": 0, "<end>": 1} | {f"w{n}": n for n in range(2, vocabulary)}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    )


class Bench:
    """The device, and the model that is on it, which steps in a row share."""

    def __init__(self, out: Path, tiny: bool) -> None:
        self.out, self.tiny = out, tiny
        self.device = torch.device("cpu" if tiny else "cuda")
        self.count = 12 if tiny else 1000
        self._model: tuple[str, Any] = ("", None)

    def model(self, name: str) -> Any:
        """The random model of that shape, on the device; another one is given up for it."""
        if self._model[0] != name:
            self.forget()
            shape = SHAPES[name]
            torch.manual_seed(0)
            config = shape.tiny if self.tiny else shape.config
            with torch.device(self.device):
                model = AutoModelForCausalLM.from_config(config, dtype=shape.dtype)
            # What transformers warns of when nothing but a length ends a text.
            model.generation_config.pad_token_id = 1
            self._model = (name, model.eval().requires_grad_(False))
        return self._model[1]

    def evaluator(self, name: str, *, tokens: int = 4096, new_tokens: int = 0) -> Evaluator:
        """The program's, as a worker builds it; `new_tokens`: texts are asked for, 200 of them."""
        model = self.model(name)
        matrices = all_matrices(model)
        places = cuts_of(matrices)
        passes = ForwardPasses.of(model, matrices, [m.ref for m in places.values()], ROOM)
        words = tokenizer(model.config.vocab_size)
        count = min(self.count, 200) if new_tokens else self.count
        asked = Questions(
            Words(new_tokens), {"validation": questions(count, model.config.vocab_size)}
        )
        predictor = make_predictor("causal", model, words, tokens, passes=passes)
        return Evaluator(Editor(model, matrices, self.factors()), predictor, asked, passes)

    def factors(self) -> FactorCache:
        """Where factors are kept."""
        return FactorCache(self.out / "factors")

    def ready(self, name: str) -> float:
        """Compute what the cuts of `cuts_of` need; seconds for each."""
        model, factors = self.model(name), self.factors()
        parameters = dict(model.named_parameters())
        started = time.perf_counter()
        places = cuts_of(all_matrices(model))
        for matrix in places.values():
            weight = matrix.read(parameters[matrix.parameter])
            rank = max(1, int(RHO * min(weight.shape)))
            factors.ensure(weight, factors.key(weight), name, rank=rank, keep=rank)
        return (time.perf_counter() - started) / len(places)

    def sync(self) -> None:
        """Wait for what the device has to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Give the model up."""
        self._model = ("", None)
        self.free()

    def free(self) -> None:
        """Give back memory that nothing uses."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def seconds(self, run: Callable[[], Any], repeats: int = 3) -> float:
        """The median of some calls, after one that warms up; the device has finished each."""
        run()
        found = []
        for _ in range(repeats):
            self.sync()
            started = time.perf_counter()
            run()
            self.sync()
            found.append(time.perf_counter() - started)
        return median(found)

    @cached_property
    def name(self) -> str:
        """Of the device."""
        return "CPU" if self.tiny else torch.cuda.get_device_name()


def cuts_of(matrices: Sequence[Matrix]) -> dict[int, Matrix]:
    """The matrix that the trials of a layer cut: the first, quarters and the last layer."""
    found = {m.ref.layer: m for m in matrices if m.ref.type == "fc_in"}
    last = max(found)
    return {layer: found[layer] for layer in sorted({0, last // 4, last // 2, 3 * last // 4, last})}


def job(matrix: Matrix | None, part: str = "validation") -> Job:
    """A single cut, or the unedited model."""
    if matrix is None:
        return Job("baseline", Composition(), "", part)
    composition = Composition.parse([f"{matrix.ref}=rho:{RHO}"])
    return Job(str(composition), composition, str(composition), part)


def card(bench: Bench) -> dict[str, Any]:
    """What the device is and reaches."""
    found: dict[str, Any] = {
        "device": bench.name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    size = 128 if bench.tiny else 8192
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        one = torch.randn(size, size, device=bench.device).to(dtype)
        spent = bench.seconds(partial(torch.matmul, one, one))
        found[f"matmul {str(dtype)[6:]}, TFLOP/s"] = round(2 * size**3 / spent / 1e12, 1)
    data = torch.randn(2**16 if bench.tiny else 2**28, device=bench.device)
    spent = bench.seconds(data.clone)
    found["copy, GB/s read and written"] = round(2 * data.nbytes / spent / 1e9)
    if bench.device.type == "cuda":
        memory = torch.cuda.get_device_properties(bench.device).total_memory
        found |= {"cuda": torch.version.cuda, "memory, GiB": round(memory / GIB, 1)}
    return found


def svd(bench: Bench) -> dict[str, Any]:
    """Seconds and errors of decompositions, by shape and method."""
    large = [(48, 32)] if bench.tiny else [(4096, 4096), (11008, 4096), (4096, 16384)]
    small = [(32, 32)] if bench.tiny else [(1024, 1024), (2048, 1024)]
    rows = [decomposed(bench, shape) for shape in large]
    rows += [decomposed(bench, shape) | reference(bench, shape) for shape in small]
    found: dict[str, Any] = {"shapes": rows, "hostile": hostile(bench)}
    if not bench.tiny:
        each = {tuple(row["shape"]): row["ours, s"] for row in rows}
        whole = 32 * (4 * each[4096, 4096] + 3 * each[11008, 4096])
        found["Llama-2-7B, all 224 matrices, s (projected)"] = round(whole, 1)
        whole = 28 * (4 * each[4096, 4096] + 2 * each[4096, 16384])
        found["GPT-J-6B, all 168 matrices, s (projected)"] = round(whole, 1)
    return found


def decomposed(bench: Bench, shape: tuple[int, int]) -> dict[str, Any]:
    """A random bfloat16 matrix by the program and by LASER's randomised SVD of a tenth."""
    weight = torch.randn(shape, device=bench.device).bfloat16()
    wide = weight.double()
    U, S, V = (part.double() for part in decompose(weight))
    rank = min(shape) // 10
    norm = wide.norm()
    left, values, right = torch.svd_lowrank(weight.float(), q=rank, niter=2)
    best = float(S[rank:].square().sum().sqrt())
    lowrank = float((wide - (left * values @ right.T).double()).norm())
    return {
        "shape": list(shape),
        "ours, s": round(bench.seconds(lambda: decompose(weight)), 4),
        "svd_lowrank, a tenth, s": round(
            bench.seconds(lambda: torch.svd_lowrank(weight.float(), q=rank, niter=2)), 4
        ),
        "residual": float((wide - U * S @ V.T).norm() / norm),
        "U from orthonormal": off(U),
        "V from orthonormal": off(V),
        "error of svd_lowrank over the best": round(lowrank / best, 4),
    }


def reference(bench: Bench, shape: Sequence[int]) -> dict[str, Any]:
    """The singular values against LAPACK's in float64; PyTorch's own SVD on the device."""
    weight = torch.randn(*shape, device=bench.device).bfloat16()
    exact = torch.linalg.svdvals(weight.cpu().double())
    ours = decompose(weight).S.cpu().double()
    plain = torch.linalg.svd(weight.float(), full_matrices=False).S.cpu().double()
    return {
        "values off, of the largest": float((ours - exact).abs().max() / exact[0]),
        "torch.linalg.svd float32, values off": float((plain - exact).abs().max() / exact[0]),
        "torch.linalg.svd float32, s": round(
            bench.seconds(lambda: torch.linalg.svd(weight.float(), full_matrices=False), 1), 4
        ),
        "torch.linalg.svd float64, s": round(
            bench.seconds(lambda: torch.linalg.svd(weight.double(), full_matrices=False), 1), 4
        ),
    }


def off(vectors: Tensor) -> float:
    """The largest entry of VᵀV − I."""
    eye = torch.eye(vectors.shape[1], device=vectors.device, dtype=vectors.dtype)
    return float((vectors.T @ vectors - eye).abs().max())


def hostile(bench: Bench) -> dict[str, str]:
    """Matrices on which solvers fail: held to the bounds that `decompose` states."""
    size = 24 if bench.tiny else 512
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(size, size, generator=generator, dtype=torch.float64)
    Q = torch.linalg.qr(plain)[0]
    steep = Q * torch.logspace(0, -30, size, dtype=torch.float64) @ Q.T
    cases = {
        "zero": torch.zeros(size, size),
        "rank one": torch.outer(plain[0], plain[1]),
        "equal singular values": Q,
        "identity": torch.eye(size),
        "thirty orders of magnitude": steep,
        "one row of 1e30": torch.cat([1e30 * plain[:1], plain[1:]]),
        "all about 1e-30": 1e-30 * plain,
        "duplicate rows": plain[:1].expand(size, size),
        "one column": plain[:, :1],
        "not a number": torch.full((size, size), torch.nan),
    }
    return {name: verdict(bench, weight.float()) for name, weight in cases.items()}


def verdict(bench: Bench, weight: Tensor) -> str:
    """Whether a matrix is decomposed within the bounds, or refused in a sentence."""
    try:
        U, S, V = (part.double() for part in decompose(weight.to(bench.device)))
    except InputError as error:
        return f"refused: {str(error)[:60]}"
    wide = weight.to(bench.device).double()
    residual = float((wide - U * S @ V.T).norm() / wide.norm().clamp(min=1e-300))
    worst = max(residual, off(U), off(V))
    return f"{'within' if worst <= 1e-6 else 'OUTSIDE'} the bounds ({worst:.0e})"


def trial(bench: Bench, name: str) -> dict[str, Any]:
    """A trial at five layers, its parts, and what stands beside it."""
    model = bench.model(name)
    factor_s = bench.ready(name)
    evaluator = bench.evaluator(name)
    matrices = all_matrices(model)
    places = cuts_of(matrices)
    reset_peak(bench)
    started = time.perf_counter()
    evaluator.evaluate(job(None))
    first_s = time.perf_counter() - started
    whole_s = bench.seconds(partial(evaluator.seconds_of_pass, "validation"), 1)
    for matrix in places.values():  # factors are read before the clock starts
        evaluator.evaluate(job(matrix))
    products = matmul_s(bench, matrices, model.dtype)
    rows = []
    for layer, matrix in places.items():
        runs = [evaluated(bench, evaluator, matrix, places) for _ in range(3)]
        spent = median(run["total"] for run in runs)
        last = {name: round(value, 4) for name, value in runs[-1].items()}
        rows.append(
            {
                "layer": layer,
                "trial, s": round(spent, 4),
                "of a whole pass": round(spent / whole_s, 3),
                "of torch.matmul's rate": round(products[layer] / spent, 3),
                "parts": last,
            }
        )
    found = {
        "prompts": bench.count,
        "dtype": str(model.dtype)[6:],
        "factors of one matrix, s": round(factor_s, 3),
        "first pass with recording and proofs, s": round(first_s, 3),
        "whole pass, s": round(whole_s, 3),
        "layers": rows,
        "peak": peak(bench, model),
        "waits": waits(bench, evaluator, places[max(places)]),
        "prefix reuse": exactness(bench, evaluator, places),
        "tokens per batch": by_tokens(bench, name),
        "LASER's way": naive(bench, evaluator, places[max(places)]),
    }
    mean = fmean(row["trial, s"] for row in rows)
    found["LASER's way over the mean trial"] = round(found["LASER's way"]["all, s"] / mean, 1)
    return found


def evaluated(
    bench: Bench, evaluator: Evaluator, matrix: Matrix, places: dict[int, Matrix]
) -> dict[str, float]:
    """Seconds of a trial by part; another cut comes before it, so that the edit is made."""
    other = next(m for m in places.values() if m is not matrix)
    evaluator.editor.apply(job(other).composition)
    bench.sync()
    started = time.perf_counter()
    evaluation = evaluator.evaluate(job(matrix))
    bench.sync()
    return evaluation.seconds | {"total": time.perf_counter() - started}


def matmul_s(bench: Bench, matrices: Sequence[Matrix], dtype: torch.dtype) -> dict[int, float]:
    """By layer, what torch.matmul takes for the products of all prompts in the blocks from it on.

    Each shape is timed once, so that layers differ by their number of products alone.
    """
    tokens = min(4096, bench.count * PROMPT_TOKENS)
    batches = -(-bench.count * PROMPT_TOKENS // tokens)

    def product_s(shape: tuple[int, ...]) -> float:
        weight = torch.randn(shape, device=bench.device).to(dtype)
        inputs = torch.randn(tokens, shape[1], device=bench.device).to(dtype)
        return bench.seconds(partial(many, inputs, weight.T), 3) / 10

    each = {shape: product_s(shape) for shape in {tuple(m.shape) for m in matrices}}
    own = {layer: 0.0 for layer in sorted({m.ref.layer for m in matrices})}
    for matrix in matrices:
        own[matrix.ref.layer] += batches * each[tuple(matrix.shape)]
    return {first: sum(s for layer, s in own.items() if layer >= first) for first in own}


def many(inputs: Tensor, weight: Tensor) -> None:
    """Ten products, so that the clock's own cost is small."""
    for _ in range(10):
        torch.matmul(inputs, weight)


def by_tokens(bench: Bench, name: str) -> dict[str, float]:
    """Seconds of a whole pass by the size of a batch."""
    found = {}
    for tokens in (1024, 4096) if bench.tiny else (1024, 4096, 16384, 65536):
        evaluator = bench.evaluator(name, tokens=tokens)
        evaluator._prepare("validation")
        spent = bench.seconds(partial(evaluator.seconds_of_pass, "validation"), 1)
        found[str(tokens)] = round(spent, 4)
    return found


def exactness(bench: Bench, evaluator: Evaluator, places: dict[int, Matrix]) -> dict[str, Any]:
    """Whether logits from a boundary are those of a full pass of the same batch, to the bit."""
    ((_, prepared),) = evaluator._prepare("validation")
    scorer: Any = evaluator._predictor.scorer  # type: ignore[attr-defined]
    prefix = evaluator.passes.prefix
    same = asked = 0
    for layer, matrix in places.items():
        evaluator.editor.apply(job(matrix).composition)
        for batch in prepared.batches[:4]:
            found = []
            for start in (0, layer):
                prefix.start = start
                with torch.inference_mode(), prefix.replaying(batch.key()):
                    found.append(scorer.run(batch))
            same += torch.equal(*found)
            asked += 1
    evaluator.close()
    return {"refused": prefix.refused, "batches": asked, "torch.equal": same}


def reset_peak(bench: Bench) -> None:
    """Forget what was the most until now."""
    if bench.device.type == "cuda":
        bench.free()
        torch.cuda.reset_peak_memory_stats()


def peak(bench: Bench, model: Any) -> dict[str, float]:
    """GiB on the device at most, beside the model and what the budgets allow."""
    if bench.device.type != "cuda":
        return {}
    held = sum(p.nbytes for p in model.parameters())
    return {
        "most": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "model": round(held / GIB, 2),
        "budgets: activations, factors, originals": (ROOM.device_bytes + 2 * BUDGET_BYTES) / GIB,
    }


def waits(bench: Bench, evaluator: Evaluator, matrix: Matrix) -> dict[str, Any]:
    """Where the host waits for the device in a trial, by line, as torch's debug mode sees it."""
    ((_, prepared),) = evaluator._prepare("validation")
    evaluator.editor.restore()
    if bench.device.type != "cuda":
        return {"batches": len(prepared.batches)}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            evaluator.evaluate(job(matrix))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = Counter(f"{'/'.join(Path(w.filename).parts[-3:])}:{w.lineno}" for w in seen)
    return {"batches": len(prepared.batches), "all": len(seen), "lines": dict(lines.most_common(8))}


def naive(bench: Bench, evaluator: Evaluator, matrix: Matrix) -> dict[str, float]:
    """LASER's way: an SVD for each trial, one prompt at a time, every block."""
    model = evaluator.editor.model
    weight = matrix.read(dict(model.named_parameters())[matrix.parameter])
    rank = int(RHO * min(weight.shape))
    svd_s = bench.seconds(partial(torch.svd_lowrank, weight.float(), q=rank, niter=2))
    ids = torch.randint(2, 500, (1, PROMPT_TOKENS), device=bench.device)

    def ask() -> None:
        with torch.no_grad():
            model(input_ids=ids).logits[0, -1].float().log_softmax(-1).argmax().item()

    each = bench.seconds(ask, 2 if bench.tiny else 20)
    return {
        "SVD of one matrix, s": round(svd_s, 3),
        "one prompt, s": round(each, 4),
        "all, s": round(svd_s + bench.count * each, 2),
    }


def oom(bench: Bench) -> dict[str, Any]:
    """All prompts in one batch, with memory for a fraction of it."""
    name = "llama-2-7b"
    bench.ready(name)
    usual = bench.evaluator(name)
    asked = job(cuts_of(all_matrices(bench.model(name)))[0])
    expected = usual.evaluate(asked)
    usual.close()
    del usual
    bench.free()
    evaluator = bench.evaluator(name, tokens=2**20)
    evaluator.passes.prefix.refused = "nothing is to be kept beside the batch"
    with ballast(bench, 3 * GIB):
        found = evaluator.evaluate(asked)
    evaluator.close()
    pairs = list(zip(expected.outcomes, found.outcomes, strict=True))
    off_by = [abs(a.log_probability - b.log_probability) for a, b in pairs]
    return {
        "tokens asked for": bench.count * PROMPT_TOKENS,
        "halved to": evaluator.passes.limit_tokens,
        "log-probabilities off, nats, mean and most": [fmean(off_by), max(off_by)],
        "said the same": sum(a.prediction == b.prediction for a, b in pairs),
        "of": len(pairs),
    }


@contextmanager
def ballast(bench: Bench, left: int) -> Iterator[None]:
    """Take all of the device's memory but `left` bytes; nothing on a CPU."""
    held = None
    if bench.device.type == "cuda":
        size = torch.cuda.mem_get_info()[0] - left
        held = torch.empty(max(0, size), dtype=torch.uint8, device=bench.device)
    yield
    del held
    bench.free()


def generation(bench: Bench) -> dict[str, Any]:
    """Texts of 15 tokens after 200 prompts, against `generate` one prompt at a time.

    The texts are compared in float32: in bfloat16 a batch of another size rounds to other tokens.
    """
    return {
        "llama-2-7b": generated(bench, "llama-2-7b"),
        "smollm2-135m": generated(bench, "smollm2-135m"),
    }


def generated(bench: Bench, name: str) -> dict[str, Any]:
    """Seconds of trials that ask for texts, in the model's dtype; then their texts are compared."""
    bench.ready(name)
    evaluator = bench.evaluator(name, new_tokens=NEW_TOKENS)
    places = cuts_of(all_matrices(bench.model(name)))
    evaluator.evaluate(job(None))
    rows: dict[str, Any] = {}
    for layer in (0, max(places)):
        runs = [evaluated(bench, evaluator, places[layer], places)["total"] for _ in range(2)]
        rows[f"first cut in layer {layer}, s"] = round(min(runs), 3)
    evaluator.close()
    return rows | as_generate(bench, name)


def as_generate(bench: Bench, name: str) -> dict[str, Any]:
    """How many texts of a cut model are those of `generate`, of 8, in float32; its seconds."""
    model = bench.model(name).float()
    bench.ready(name)
    evaluator = bench.evaluator(name, new_tokens=NEW_TOKENS)
    places = cuts_of(all_matrices(model))
    cut = job(places[max(places)])
    evaluator.evaluate(job(None))  # records what the cut's texts begin from
    said = {o.example_id: o.prediction for o in evaluator.evaluate(cut).outcomes}
    asked, words = evaluator._parts["validation"], tokenizer(model.config.vocab_size)
    same, started = 0, time.perf_counter()
    with evaluator.editor.applied(cut.composition):
        for example in asked[:8]:
            ids = words(example.prompt, return_tensors="pt", return_token_type_ids=False)
            text = model.generate(
                **ids.to(bench.device), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=1
            )
            plain = words.decode(text[0, PROMPT_TOKENS:], skip_special_tokens=True)
            same += said[example.id] == plain
    each = (time.perf_counter() - started) / min(8, len(asked))
    evaluator.close()
    bench.forget()  # it is in float32 now
    return {
        "prompts": len(asked),
        "generate in float32, one at a time, s (projected)": round(each * len(asked), 2),
        "texts as generate's, of 8": same,
    }


def several(bench: Bench) -> dict[str, Any]:
    """Trials in one pass against as many passes: a small model in full, decoding of a large one."""
    from variants import CASES, Limits, Variants, measured

    bench.forget()
    if bench.tiny:
        asked = {"tiny": CASES}
        options: dict[str, Any] = {"limits": Limits(0), "copies": (2,), "parts": ["16 questions"]}
    else:
        asked, options = {"smollm2": CASES, "llama-2-7b": ("decoding",)}, {"copies": (2, 8)}
    found = {}
    for shape, cases in asked.items():
        on = Variants(shape, bench.device)
        for case, rows in measured(on, cases, **options).items():
            found[f"{shape}, {case}"] = rows
        del on
        bench.free()
    return found


def workers(bench: Bench, name: str) -> dict[str, Any]:
    """Trials per second of processes that share the device, at the middle layer."""
    bench.forget()
    counts = (1, 2) if name == "llama-2-7b" else (1, 2, 4)
    found: dict[str, Any] = {}
    for count in counts:
        found[str(count)] = round(rate(bench, name, count), 3)
    return {"trials per second": found}


def rate(bench: Bench, name: str, count: int) -> float:
    """Trials per second of `count` processes that began when all of them were ready."""
    command = [sys.executable, __file__, "--out", str(bench.out), "--worker", name]
    command += ["--seconds", "1" if bench.tiny else "5", *(["--tiny"] if bench.tiny else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(count)]  # type: ignore[call-overload]
    try:
        for process in running:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a worker of {count} did not start")
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(float(process.stdout.readline()) for process in running)
    finally:
        for process in running:
            process.stdin.close()
            process.wait(60)


def work(bench: Bench, name: str, seconds: float) -> None:
    """A process that answers for `rate`: trials for some seconds once it is told to go."""
    bench.ready(name)
    evaluator = bench.evaluator(name)
    places = cuts_of(all_matrices(bench.model(name)))
    middle = places[sorted(places)[len(places) // 2]]
    evaluator.evaluate(job(None))
    evaluated(bench, evaluator, middle, places)
    print("ready", flush=True)
    sys.stdin.readline()
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        evaluated(bench, evaluator, middle, places)
        done += 1
    print(done / (time.perf_counter() - started), flush=True)


STEPS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "card": card,
    "svd": svd,
    "trial-llama-2-7b": partial(trial, name="llama-2-7b"),
    "oom": oom,
    "generation": generation,
    "variants": several,
    "trial-smollm2-135m": partial(trial, name="smollm2-135m"),
    "trial-gpt-j-6b": partial(trial, name="gpt-j-6b"),
    "workers-smollm2-135m": partial(workers, name="smollm2-135m"),
    "workers-llama-2-7b": partial(workers, name="llama-2-7b"),
}


def measure(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """Do the steps that are not done, each written before the next begins."""
    path = bench.out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        if "result" in results.get(name, {}):
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        try:
            entry = {"result": STEPS[name](bench)}
        except Exception as error:  # the other steps are still worth having
            traceback.print_exc()
            entry = {"error": f"{type(error).__name__}: {error}"}
            bench.forget()
        entry |= {"device": bench.name, "seconds": round(time.perf_counter() - started, 1)}
        results[name] = entry
        write_text(path, json.dumps(results, indent=1))
        print(json.dumps(entry), flush=True)
    write_text(bench.out / "report.md", report(results))
    return results


def report(results: dict[str, Any]) -> str:
    """Markdown: a heading for each step, a table for what is a list, a line for what is not."""
    lines: list[str] = []
    for name, entry in results.items():
        lines += [f"## {name}", "", f"{entry['device']}, {entry['seconds']} s in all.", ""]
        if "error" in entry:
            lines += [f"**Failed:** {entry['error']}", ""]
            continue
        for key, value in entry["result"].items():
            if isinstance(value, list) and isinstance(value[0], dict):
                columns = list(dict.fromkeys(column for row in value for column in row))
                lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
                lines += ["| " + " | ".join(cell(row, c) for c in columns) + " |" for row in value]
                lines.append("")
            else:
                lines.append(f"- {key}: {shown(value)}")
        lines.append("")
    return "\n".join(lines)


def cell(row: dict[str, Any], column: str) -> str:
    """One value of a table."""
    return shown(row[column]) if column in row else ""


def shown(value: Any) -> str:
    """A figure, or several."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(own)}" for key, own in value.items())
    if isinstance(value, list):
        return " × ".join(shown(own) for own in value)
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1e-2 else str(value)


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--tiny", action="store_true", help="small models on a CPU")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--worker", choices=list(SHAPES), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=5.0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny runs the same steps on a CPU")
    asked.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(asked.out, asked.tiny)
    if asked.worker:
        work(bench, asked.worker, asked.seconds)
        return
    failed = [n for n, entry in measure(bench, asked.steps).items() if "error" in entry]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; started again, they are tried again")


if __name__ == "__main__":
    main()
