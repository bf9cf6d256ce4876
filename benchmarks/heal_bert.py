"""A classifier whose every block matrix is cut, then trained: accuracy and parameters.

    python benchmarks/heal_bert.py --out ./healed
    python benchmarks/heal_bert.py --out ./healed --model ./sst2-run/bert-sst2 \
        --train sst2-train.tsv --data sst2-dev.tsv

Without `--model` a small BERT is trained here on sentences whose label is the kind, of ten, of the
last word: the head reads the first place, so the blocks have to carry it there past five others.
With it, on the model of benchmarks/sst2_bert.py; the files hold ``sentence<TAB>label`` rows.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from one_study import evaluate_all
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from search.model import ModelSource
from search.weights.matrices import find_matrices

PROGRAM = [sys.executable, "-m", "cluster.cli"]
WORDS = 40


def sentences(count: int, seed: int) -> list[tuple[list[int], int]]:
    """Six words each, and the last one's number modulo ten."""
    chance = random.Random(seed)
    rows = [[chance.randrange(WORDS) for _ in range(6)] for _ in range(count)]
    return [(row, row[-1] % 10) for row in rows]


def write(path: Path, rows: list[tuple[list[int], int]]) -> Path:
    lines = [{"text": " ".join(f"w{i}" for i in row), "label": label} for row, label in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def train(folder: Path, steps: int) -> None:
    """Train and save the classifier."""
    torch.manual_seed(0)
    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i + 2 for i in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=16,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    rows = sentences(64 * steps, seed=1)
    for step in range(steps):
        part = rows[64 * step : 64 * (step + 1)]
        ids = torch.tensor([row for row, _ in part]) + 2
        loss = model(input_ids=ids, labels=torch.tensor([label for _, label in part])).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 200 == 199:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder)
    names = dict(pad_token="[PAD]", unk_token="[UNK]")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def synthetic(out: Path) -> tuple[dict[str, Any], Path]:
    """The classifier made here: its study.yaml and its training file."""
    train(out / "base", steps=600)
    data = write(out / "asked.jsonl", sentences(2000, seed=2))
    settings = {
        "model": {"path": str((out / "base").resolve())},
        "task": {"name": "jsonl", "data": str(data.resolve())},
    }
    return settings, write(out / "train.jsonl", sentences(8000, seed=3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rho", type=float, nargs="+", default=[0.05, 0.02])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    if asked.model is None:
        settings, rows = synthetic(asked.out)
    else:
        rows = asked.train
        settings = {
            "model": {"path": str(Path(asked.model).resolve())},
            "task": {"name": "sst2", "data": str(asked.data.resolve())},
        }
    settings |= {"space": {"matrices": ["all"]}, "factors": str((asked.out / "factors").resolve())}
    source = ModelSource(settings["model"]["path"])
    matrices = [m for m in find_matrices(source.skeleton()) if m.searchable]
    cuts = [" ".join(f"{m.ref}={rho!r}" for m in matrices) for rho in asked.rho]
    evaluate_all(asked.out / "study", settings, cuts)
    for trial, rho in enumerate(asked.rho):
        for method in ("factors", "lora"):
            out = asked.out / f"{method}-{trial}"
            words = ["heal", str(asked.out / "study"), "--trial", str(trial), "--out", str(out)]
            words += ["--train", str(rows.resolve()), "--steps", str(asked.steps)]
            words += ["--method", method, "--learning-rate", "1e-3", "--apart"]
            started = time.perf_counter()
            print(f"rho {rho:.3f}, {method}, {asked.steps} steps:", flush=True)
            subprocess.run([*PROGRAM, *words], check=True)
            print(f"  {time.perf_counter() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
