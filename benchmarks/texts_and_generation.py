"""Perplexity against lm-evaluation-harness, and batched generation against one prompt at a time.

A random GPT-2 with a byte-level vocabulary trained on the given text; float32 on one thread of a
CPU. The text is cut as the task `perplexity` cuts it, and its articles are longer than the model.

    pip install 'laser-search[lm-eval]' accelerate
    python benchmarks/texts_and_generation.py TEXT.txt
"""

from __future__ import annotations

import math
import sys
import time
from itertools import islice
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from search.evaluation.predictor import make_predictor
from tasks.base import Example, Generate, TokenNll
from tasks.metrics import shown
from tasks.perplexity import Perplexity
from tasks.scoring import summarise

END = "<|endoftext|>"


def make_model(path: str) -> tuple[Any, Any]:
    """A random model whose logits differ, and its tokenizer."""
    trained = ByteLevelBPETokenizer()
    trained.train([path], vocab_size=8000, special_tokens=[END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=END, eos_token=END
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_embd=256,
        n_layer=6,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, tokenizer


def perplexity(model: Any, tokenizer: Any, examples: list[Example]) -> None:
    """Ours and the harness's log-likelihood of each article, and the perplexity of all."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    task = Perplexity()
    started = time.perf_counter()
    predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=4096)
    replies = predictor.answer(
        predictor.prepare([task.request(example, "causal") for example in examples])
    )
    ours_s = time.perf_counter() - started
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, device="cpu")
    started = time.perf_counter()
    theirs = lm.loglikelihood_rolling(
        [
            Instance("loglikelihood_rolling", {}, (example.prompt,), number)
            for number, example in enumerate(examples)
        ],
        disable_tqdm=True,
    )
    theirs_s = time.perf_counter() - started
    worst = max(abs(r.nats + t) / abs(t) for r, t in zip(replies, theirs, strict=True))
    outcomes = [task.outcome(e, r) for e, r in zip(examples, replies, strict=True)]
    tokens = sum(reply.tokens for reply in replies)
    reference = math.exp(-sum(theirs) / tokens)
    print(
        f"{len(examples)} articles, {tokens} tokens: perplexity "
        f"{shown('perplexity', summarise(outcomes, examples).score):.6f} against {reference:.6f}, "
        f"articles differ by {worst:.1e} at most; {ours_s:.1f} s against {theirs_s:.1f} s"
    )
    for stride in (None, 128):
        found = predictor.answer(
            predictor.prepare([TokenNll(e.prompt, 256, stride) for e in examples])
        )
        print(f"  stride {stride}: {math.exp(sum(r.nats for r in found) / tokens):.4f}")


def generation(model: Any, tokenizer: Any, examples: list[Example]) -> None:
    """Ours against `generate`, one prompt at a time: the same tokens, and the time."""
    words = " ".join(example.prompt for example in examples).split()
    prompts = [" ".join(words[n * 40 : n * 40 + 8 + n % 25]) for n in range(200)]
    predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=4096)
    prepared = predictor.prepare([Generate(prompt, 15) for prompt in prompts])
    started = time.perf_counter()
    replies = predictor.answer(prepared)
    ours_s = time.perf_counter() - started
    started = time.perf_counter()
    texts = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")
        said = model.generate(**ids, do_sample=False, max_new_tokens=15, pad_token_id=0)
        texts.append(tokenizer.decode(said[0, ids.input_ids.shape[1] :], skip_special_tokens=True))
    theirs_s = time.perf_counter() - started
    equal = sum(reply.text == text for reply, text in zip(replies, texts, strict=True))
    print(
        f"{len(prompts)} prompts, 15 tokens: {equal} equal; {ours_s:.2f} s against "
        f"{theirs_s:.2f} s one at a time ({theirs_s / ours_s:.1f}x)"
    )


def main() -> None:
    """Print both comparisons."""
    torch.set_num_threads(1)
    model, tokenizer = make_model(sys.argv[1])
    examples = list(islice(Perplexity().load(sys.argv[1]), 12))
    perplexity(model, tokenizer, examples)
    generation(model, tokenizer, examples)


if __name__ == "__main__":
    main()
