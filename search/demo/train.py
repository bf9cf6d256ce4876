"""Make the demonstration's model and questions again: ``python -m search.demo.train``.

On one thread the result is a function of the seed (for one version of torch and one kind of CPU);
it takes two to three CPU minutes. Nothing of low-rank editing is used or known here: the model is
trained on its text in the usual way, and what a search finds in it was not put there.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from search.demo.words import ANSWERS, NAMES, OPENINGS, TEMPLATES
from search.demo.world import CORRUPTION, World, build_world, questions_text, sentences

STEPS = 2000
_BATCH_SENTENCES = 128
_WARMUP_STEPS = 50
_PEAK_RATE = 3e-3
_FLOOR = 0.05
_CONTEXT_TOKENS = 32
_PAD, _UNKNOWN, _END = "<pad>", "<unk>", "<end>"
_IGNORED_LABEL = -100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word and per mark; adds no special tokens, so prompts can be continued."""
    phrases = [*OPENINGS, *(t.format(name="") for ts in TEMPLATES.values() for t in ts), "."]
    split = pre_tokenizers.Whitespace()
    grammar = {piece for phrase in phrases for piece, _ in split.pre_tokenize_str(phrase)}
    answers = [word for words in ANSWERS.values() for word in words]
    vocabulary = [_PAD, _UNKNOWN, _END, *sorted(grammar), *answers, *NAMES]
    core = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=_UNKNOWN)
    )
    core.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        bos_token=_END,
        eos_token=_END,
        model_max_length=_CONTEXT_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> GPTJForCausalLM:
    """An untrained GPT-J of three layers, float32 on the CPU. Seeds torch's global generator."""
    torch.manual_seed(seed)
    config = GPTJConfig(
        vocab_size=len(tokenizer),
        n_positions=_CONTEXT_TOKENS,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_inner=256,
        rotary_dim=16,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,  # 87 kB less to ship
    )
    return GPTJForCausalLM(config)


def train(
    world: World, seed: int = 0, corruption: float = CORRUPTION, steps: int = STEPS
) -> tuple[GPTJForCausalLM, PreTrainedTokenizerFast]:
    """Train on the sentences of `world`, loss on every token. Returns the model in eval mode."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    for step, (tokens, labels) in enumerate(_batches(world, tokenizer, corruption, steps), 1):
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", file=sys.stderr)
    return model.eval(), tokenizer


def write(out: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Train on the world of `seed`; write ``out/model/`` and ``out/questions.jsonl``."""
    world = build_world(seed)
    model, tokenizer = train(world, seed, steps=steps)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    # Saved weights are readable by their owner alone, whatever the umask; a package is for all.
    (out / "model" / "model.safetensors").chmod(0o644)
    (out / "questions.jsonl").write_text(questions_text(world), encoding="utf-8")


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to the floor."""
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    done = (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def _batches(
    world: World, tokenizer: PreTrainedTokenizerFast, corruption: float, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and labels [sentences, tokens], int64; padding is on the right and unlabelled."""
    stream = sentences(world, corruption)
    for _ in range(steps):
        texts = [sentence + _END for sentence in islice(stream, _BATCH_SENTENCES)]
        tokens = tokenizer(texts, padding=True, return_tensors="pt").input_ids
        yield tokens, tokens.masked_fill(tokens == tokenizer.pad_token_id, _IGNORED_LABEL)


def main() -> None:
    """Entry point of ``python -m search.demo.train``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of world, text and weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to fill")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; 1 is reproducible")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    write(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
