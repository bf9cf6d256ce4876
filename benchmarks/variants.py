"""Several variants of a model in one pass: what that can win, at most.

    python benchmarks/variants.py --shape smollm2 --threads 1
    python benchmarks/variants.py --shape llama-1b --cases decoding --device cuda

K trials that differ in one matrix of one block are K passes over a batch, or one pass over K copies
of it in which that matrix is applied copy by copy as two thin factors. The figure is the time of
the first over that of the second: what sharing can win before anything else is paid for it. On a
CPU it is processor time of all threads, else wall time; the two are measured in turns, and the
fastest of each counts. Batches are those that the program makes (similar lengths, little padding),
passes begin at the block of the cut, and the last block computes what is scored alone.

`shared`: the same, had the attention of the first block that differs been computed once for all K;
its inputs are the same. `from the MLP`: what beginning behind that attention would win for one
trial by itself. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from gpu import SHAPES as OF_CARDS
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from search.evaluation.generation import cache_name
from search.evaluation.requests import make_batches
from search.evaluation.token_scorer import TokenScorer
from search.reuse.activations import GIB, Room
from search.reuse.batching import Batch, Scored, TokenRow, merge_prefixes
from search.reuse.forward import ForwardPasses
from search.sections import PAPER_RHO
from search.weights.matrices import Matrix, all_matrices

COPIES = (2, 4, 8)
RHO = 0.1
PARTS = {"full batch": 0, "96 questions": 96, "48 questions": 48, "16 questions": 16}
TOKENS = 4096
"""Of a batch, as `tokens_per_batch` has it by default."""
DECODED = (1, 8, 32)
PROMPT_TOKENS = 40
LEAST_S, MOST_S = 1.0, 30.0
"""Both sides are measured in turns until they took so long in all; a case of more than two copies
that would take `MOST_S` is left out."""

SHAPES: dict[str, tuple[Any, torch.dtype]] = {
    "tiny": (
        LlamaConfig(
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            vocab_size=512,
        ),
        torch.float32,
    ),
    "gpt2": (GPT2Config(), torch.float32),
    "smollm2": (OF_CARDS["smollm2-135m"].config, torch.float32),
    "llama-1b": (
        LlamaConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=128256,
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
    ),
    "llama-2-7b": (LlamaConfig(), torch.bfloat16),
}


@dataclass(frozen=True)
class Limits:
    """Seconds of a case, at least and, with more than two copies, at most."""

    least_s: float = LEAST_S
    most_s: float = MOST_S


@dataclass(frozen=True)
class Clock:
    """Seconds of processor time on a CPU, of wall time elsewhere, with the device at rest."""

    device: torch.device

    def __call__(self) -> float:
        """Now."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def of(self, run: Callable[[], object]) -> float:
        """Of one call."""
        started = self()
        run()
        return self() - started


class Variants:
    """A random model, asked as the program asks it."""

    def __init__(self, shape: str, device: torch.device) -> None:
        config, dtype = SHAPES[shape]
        torch.manual_seed(0)
        with torch.device(device):
            self.model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        self.model.eval().requires_grad_(False)
        self.matrices = [m for m in all_matrices(self.model) if m.ref.type == "fc_in"]
        self.clock = Clock(device)
        self.vocabulary = int(config.vocab_size)
        everything = all_matrices(self.model)
        refs = [m.ref for m in self.matrices]
        self.scorer = TokenScorer(
            self.model, ForwardPasses.of(self.model, everything, refs, Room(4 * GIB, 4 * GIB))
        )

    def places(self) -> dict[str, Matrix]:
        """The matrix cut, by where its block stands."""
        found = self.matrices
        return {"first": found[0], "middle": found[len(found) // 2], "last": found[-1]}

    def batches(self, questions: int) -> list[Batch]:
        """Those of as many questions of 10 to 60 tokens; 0: one full batch of 32 tokens each."""
        draw = random.Random(0)
        lengths = [draw.randint(10, 60) for _ in range(questions)] or [32] * (TOKENS // 32)
        rows = [
            TokenRow(
                tuple(draw.randrange(2, self.vocabulary) for _ in range(length)),
                (Scored(length - 1, 2, n),),
            )
            for n, length in enumerate(lengths)
        ]
        return make_batches(merge_prefixes(rows), self.scorer, TOKENS)

    def attention(self, matrix: Matrix) -> nn.Module:
        """That of the block of `matrix`."""
        block = self.model.get_submodule(matrix.block)
        return next(m for name, m in block.named_children() if name in ("self_attn", "attn"))

    def thin(self, matrix: Matrix, count: int) -> list[tuple[Tensor, Tensor]]:
        """Factors [in, r], [r, out] of as many variants; numbers like any."""
        rank = max(1, int(RHO * matrix.max_rank))
        weight = next(iter(self.model.parameters()))
        out, into = matrix.shape
        make = partial(torch.randn, dtype=weight.dtype, device=weight.device)
        return [(make(into, rank) / into, make(rank, out) / rank) for _ in range(count)]


def scoring(
    on: Variants, copies: Sequence[int], limits: Limits, parts: Sequence[str]
) -> list[dict[str, Any]]:
    """Passes from the block of the cut, by part and place."""
    rows = []
    for part in parts:
        batches = on.batches(PARTS[part])
        for place, matrix in on.places().items():
            for k in copies:
                found = scored(on, batches, matrix, k, limits)
                head = {"part": part, "batches": len(batches), "block": place, "K": k}
                rows.append(head | found)
                print(json.dumps(rows[-1]), flush=True)
    return rows


def scored(
    on: Variants, batches: Sequence[Batch], matrix: Matrix, k: int, limits: Limits
) -> dict[str, Any]:
    """K passes against one over K copies."""
    with (
        passes(on, batches, matrix) as one,
        passes(on, [many(b, k) for b in batches], matrix) as all_,
    ):
        factors = on.thin(matrix, k)
        module = on.model.get_submodule(matrix.module)
        attention = Stopwatch(on.attention(matrix), on.clock)

        def together() -> None:
            with forwarding(module, partial(by_slice, factors)):
                all_()

        return compared(on.clock, one, together, k, limits, attention)


def nested(on: Variants, limits: Limits, parts: Sequence[str]) -> list[dict[str, Any]]:
    """The paper's nine rho of one matrix in the last block, from one product with all of V."""
    matrix = on.places()["last"]
    ranks = sorted(max(1, int(rho * matrix.max_rank)) for rho in PAPER_RHO)
    out, into = matrix.shape
    weight = next(iter(on.model.parameters()))
    make = partial(torch.randn, dtype=weight.dtype, device=weight.device)
    right, left = make(into, ranks[-1]) / into, make(ranks[-1], out) / ranks[-1]
    written = []
    for rank in ranks:
        product = partial(torch.matmul, right[:, :rank].float(), left[:rank].float())
        product()
        written.append(min(on.clock.of(product) for _ in range(2)))
    rows = []
    for part in parts:
        batches, k = on.batches(PARTS[part]), len(ranks)
        copied = [many(b, k) for b in batches]
        with passes(on, batches, matrix) as one, passes(on, copied, matrix) as all_:
            module = on.model.get_submodule(matrix.module)
            attention = Stopwatch(on.attention(matrix), on.clock)

            def together(all_: Callable[[], None] = all_, module: nn.Module = module) -> None:
                with forwarding(module, partial(by_prefix, right, left, ranks)):
                    all_()

            found = compared(on.clock, one, together, k, limits, attention)
        if "won" in found:
            both = (sum(written) + found["separate, s"]) / found["together, s"]
            found["won, with writing nine products"] = round(both, 2)
        rows.append({"part": part, "batches": len(batches), "block": "last", "K": k} | found)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def decoding(on: Variants, copies: Sequence[int], limits: Limits) -> list[dict[str, Any]]:
    """One token after prompts of 40, by rows of the batch; every block runs for it."""
    matrix = on.places()["middle"]
    rows = []
    for size in DECODED:
        for k in copies:
            factors = on.thin(matrix, k)
            module = on.model.get_submodule(matrix.module)
            one, all_ = step_of(on, size), step_of(on, size * k)

            def together(
                all_: Callable[[], None] = all_,
                module: nn.Module = module,
                factors: list[tuple[Tensor, Tensor]] = factors,
            ) -> None:
                with forwarding(module, partial(by_slice, factors)):
                    all_()

            found = compared(on.clock, one, together, k, limits)
            rows.append({"rows": size, "K": k} | found)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def step_of(on: Variants, size: int) -> Callable[[], None]:
    """One more token for `size` rows; the cache is cut back after it."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(2, on.vocabulary, (size, PROMPT_TOKENS), generator=draw)
    ids = ids.to(on.clock.device)
    with torch.inference_mode():
        found = on.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    name = cache_name(on.model)
    cache = getattr(found, name)

    def step() -> None:
        with torch.inference_mode():
            on.model(input_ids=ids[:, -1:], use_cache=True, **{name: cache})
            cache.crop(-1)

    return step


class Stopwatch:
    """Seconds that a module takes, while it is asked to look."""

    def __init__(self, module: nn.Module, clock: Clock) -> None:
        self._module, self._clock = module, clock

    def of(self, run: Callable[[], None]) -> float:
        """Of the module, in one call of `run`."""
        spent = 0.0
        started = 0.0

        def begin(*_: Any) -> None:
            nonlocal started
            started = self._clock()

        def end(*_: Any) -> None:
            nonlocal spent
            spent += self._clock() - started

        hooks = [
            self._module.register_forward_pre_hook(begin),
            self._module.register_forward_hook(end),
        ]
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
        return spent


def compared(
    clock: Clock,
    one: Callable[[], None],
    together: Callable[[], None],
    k: int,
    limits: Limits,
    attention: Stopwatch | None = None,
) -> dict[str, Any]:
    """K calls of `one` and a call of `together` in turns, the fastest of each."""

    def separate() -> None:
        for _ in range(k):
            one()

    single = clock.of(one)
    if k > 2 and 3 * k * single > limits.most_s:
        return {"left out, s": round(3 * k * single, 1)}
    if single < 1:
        together()  # memory is got before the clock starts
    each: tuple[list[float], list[float]] = ([], [])
    while not each[0] or sum(map(sum, each)) < limits.least_s:
        each[0].append(clock.of(separate))
        each[1].append(clock.of(together))
    apart, both = min(each[0]), min(each[1])
    found = {
        "separate, s": round(apart, 4),
        "together, s": round(both, 4),
        "won": round(apart / both, 2),
    }
    if attention is not None:
        all_s, own_s = attention.of(together), attention.of(one)
        found["won, shared"] = round(apart / (both - all_s + own_s), 2)
        found["won from the MLP"] = round(apart / k / max(1e-9, apart / k - own_s), 2)
    return found


@contextmanager
def passes(on: Variants, batches: Sequence[Batch], matrix: Matrix) -> Iterator[Callable[[], None]]:
    """One pass over all of `batches` from the block of `matrix`, whose boundary is recorded."""
    prefix = on.scorer.passes.prefix
    place = prefix.blocks.place_of[matrix.ref]
    with torch.inference_mode():
        for batch in batches:
            on.scorer.calibrate(batch)
            seen = prefix._watch(partial(on.scorer.run, batch), (place,) if place else ())
            prefix._records[batch.key()] = prefix._store(batch.key(), seen)

    def run() -> None:
        prefix.start = place
        with torch.inference_mode():
            for batch in batches:
                with prefix.replaying(batch.key()) as begun:
                    assert begun == place
                    on.scorer.run(batch)

    try:
        yield run
    finally:
        prefix.forget([batch.key() for batch in batches])


def many(batch: Batch, k: int) -> Batch:
    """A batch of K copies of the rows of another, one copy after the other."""
    count = len(batch.input_ids)
    found = {f.name: getattr(batch, f.name) for f in fields(Batch)}
    for name, value in found.items():
        if value is not None:
            found[name] = value.repeat(k, *[1] * (value.ndim - 1))
    copies = torch.arange(k, device=batch.rows.device).repeat_interleave(len(batch.rows))
    found["rows"] = found["rows"] + copies * count
    found["slots"] = found["slots"] + copies * (int(batch.slots.max()) + 1)
    return Batch(**found)


def by_slice(factors: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Each variant's thin product on its own part of the rows of `x` [..., in]."""
    flat = x.reshape(-1, x.shape[-1])
    parts = flat.chunk(len(factors))
    found = [part @ right @ left for part, (right, left) in zip(parts, factors, strict=True)]
    return torch.cat(found).view(*x.shape[:-1], -1)


def by_prefix(right: Tensor, left: Tensor, ranks: Sequence[int], x: Tensor) -> Tensor:
    """All variants from one product with V: each adds to the one of the next smaller rank."""
    flat = x.reshape(-1, x.shape[-1])
    inner = flat[: len(flat) // len(ranks)] @ right
    found: list[Tensor] = []
    below = 0
    for rank in ranks:
        more = inner[:, below:rank] @ left[below:rank]
        found.append(found[-1] + more if found else more)
        below = rank
    return torch.cat(found).view(*x.shape[:-1], -1)


@contextmanager
def forwarding(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `module` compute something else."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


CASES = ("decoding", "nested", "scoring")


def measured(
    on: Variants,
    cases: Sequence[str] = CASES,
    copies: Sequence[int] = COPIES,
    limits: Limits = Limits(),  # frozen
    parts: Sequence[str] = tuple(PARTS),
) -> dict[str, list[dict[str, Any]]]:
    """Rows of a table for each case."""
    runs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "decoding": partial(decoding, on, copies, limits),
        "nested": partial(nested, on, limits, parts),
        "scoring": partial(scoring, on, copies, limits, parts),
    }
    return {case: runs[case]() for case in cases}


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--copies", nargs="+", type=int, default=list(COPIES))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    on = Variants(asked.shape, torch.device(asked.device))
    measured(on, asked.cases, asked.copies, parts=asked.parts)


if __name__ == "__main__":
    main()
