"""What a trial costs whose answers are generated, by its first layer, with reuse and without.

    python benchmarks/generated_trials.py wikitext2-valid.txt [--shape smollm2] [--layers 0 5 11]

A random model of the shape, in float32 on a CPU, and prompts of the length of HotpotQA's questions,
cut from the text: 12 to 32 words and ``The answer is``; each is continued by 15 tokens. One matrix
of the named layer is cut to rank 1. Seconds of processor time, so that other work on the machine
changes little; the two ways take turns in one process. Asserts that both say the same.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu import SHAPES as OF_CARDS
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from search.cuts.composition import Composition
from search.evaluation.predictor import RecordingPredictor, make_predictor
from search.reuse.activations import GIB, Room
from search.reuse.forward import ForwardPasses
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.base import Generate

END = "<|endoftext|>"
NEW_TOKENS = 15
SHAPES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config()),
    "smollm2": lambda: LlamaForCausalLM(OF_CARDS["smollm2-135m"].config),
}


def make_model(shape: str, text: Path) -> tuple[Any, Any]:
    """A random model whose texts differ, and a tokenizer of the text's words."""
    trained = ByteLevelBPETokenizer()
    trained.train([str(text)], vocab_size=16000, special_tokens=[END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=END, eos_token=END
    )
    torch.manual_seed(0)
    model = SHAPES[shape]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, tokenizer


def questions(text: Path, count: int) -> list[str]:
    """Prompts of 12 to 32 words."""
    words = text.read_text().split()
    lengths = random.Random(0).choices(range(12, 33), k=count)
    return [
        f"{' '.join(words[40 * n : 40 * n + length])}? The answer is"
        for n, length in enumerate(lengths)
    ]


def spent(predictor: RecordingPredictor, prepared: Any) -> tuple[float, list[str]]:
    """Seconds of processor time of all answers, and what they say."""
    started = time.process_time()
    replies = predictor.answer(prepared)
    return time.process_time() - started, [reply.text for reply in replies]


def main() -> None:
    """Print a line for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--gib", type=float, default=2.0, help="room for what is kept")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model, tokenizer = make_model(asked.shape, asked.text)
    matrices = find_matrices(model)
    passes = ForwardPasses.of(model, matrices, room=Room(int(asked.gib * GIB)))
    predictor = make_predictor(
        "causal", model, tokenizer, tokens_per_batch=asked.tokens_per_batch, passes=passes
    )
    requests = [Generate(prompt, NEW_TOKENS) for prompt in questions(asked.text, asked.prompts)]
    prepared = predictor.prepare(requests)
    passes.expect((), prepared.prompts)
    sizes = [tuple(batch.input_ids.shape) for batch in prepared.prompts]
    used = sum(int(batch.attention_mask.sum()) for batch in prepared.prompts)
    print(f"{asked.shape}: {used} tokens of prompts in batches of {sizes}", flush=True)
    started = time.process_time()
    predictor.record(prepared)
    held = sum(passes.prompts.activations.held.values())
    print(
        f"recording {time.process_time() - started:.1f} s; {held / 2**20:.0f} MiB kept, "
        f"boundaries {passes.prompts.boundaries}, {passes.prompts.refused or 'proven'}",
        flush=True,
    )
    count = len(passes.prefix.blocks)
    layers = asked.layers or [0, count // 4, count // 2, 3 * count // 4, count - 1]
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor(model, matrices, FactorCache(folder))
        for layer in layers:
            cut = Composition.parse([f"{layer}.fc_in=rank:1"])
            with editor.applied(cut):
                times: dict[int, list[float]] = {0: [], layer: []}
                for _ in range(asked.repeats):
                    for start in (0, layer):
                        passes.prefix.start = start
                        seconds, texts = spent(predictor, prepared)
                        times[start].append(seconds)
                        if start == 0:
                            whole = texts
                        elif texts != whole:
                            raise AssertionError("reuse changes a text")
            full, reused = min(times[0]), min(times[layer])
            print(
                f"first cut in {layer}: {full:.2f} s in full, {reused:.2f} s with reuse "
                f"({reused / full:.2f}), {len(set(whole))} different texts",
                flush=True,
            )


if __name__ == "__main__":
    main()
