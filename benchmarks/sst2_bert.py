"""A real run: train a small BERT on SST-2 sentences, search it, export the winner, reload, compare.

    python benchmarks/sst2_bert.py --train sst2-train.tsv --data sst2-dev.tsv --out ./sst2-run

The files hold ``sentence<TAB>label`` rows. Training takes minutes on two CPU cores; the model is
small and made here, so its accuracy says nothing about BERT. The search, the export and the
comparison are those of any model.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
)

from search.study.outcomes import read_outcomes
from search.study.study_record import StudyRecord

PROGRAM = [sys.executable, "-m", "cluster.cli"]


def read(path: Path) -> list[tuple[str, int]]:
    """Sentences and labels."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row[0], int(row[1])) for row in rows]


def make_tokenizer(sentences: list[str], folder: Path) -> BertTokenizerFast:
    """A WordPiece vocabulary of the training sentences."""
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(sentences, vocab_size=6000, min_frequency=2, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=96)


def flip(rows: list[tuple[str, int]], share: float) -> list[tuple[str, int]]:
    """The rows with a share of wrong labels, which a model can only learn by heart."""
    wrong = set(random.Random(0).sample(range(len(rows)), int(share * len(rows))))
    return [(text, 1 - label if n in wrong else label) for n, (text, label) in enumerate(rows)]


def train(
    rows: list[tuple[str, int]],
    folder: Path,
    layers: int,
    epochs: int,
    width: int,
    rate: float,
) -> None:
    """Train a BERT classifier and save it as any checkpoint is saved."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer([sentence for sentence, _ in rows], folder)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=128,
        num_labels=2,
    )
    model = BertForSequenceClassification(config).train()

    def batches(_: int) -> Iterator[list[tuple[str, int]]]:
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order) - 63, 64):
            yield [rows[i] for i in order[start : start + 64]]

    fit(model, tokenizer, batches, epochs, rate, epochs * (len(rows) // 64) + epochs)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fit(
    model: Any,
    tokenizer: Any,
    batches: Callable[[int], Iterable[list[tuple[str, int]]]],
    epochs: int,
    rate: float,
    steps: int,
) -> None:
    """Train a classifier on the batches of each epoch, with one cycle of `steps`."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        for batch in batches(epoch):
            inputs = tokenizer([s for s, _ in batch], return_tensors="pt", padding=True)
            labels = torch.tensor([label for _, label in batch])
            loss = model(**inputs, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}", flush=True)


def compare(study: Path, model_folder: Path, rows: list[tuple[str, int]]) -> dict[str, object]:
    """Ask the exported model through plain transformers; compare with the trial's outcomes."""
    record = StudyRecord.read(study)
    winner = record.summary.winner
    if winner is None:
        raise SystemExit("no composition beat the baseline on validation")
    stored = read_outcomes(
        study, f"trial-{winner.number:05d}", record.identity.study_id, winner.effect
    )
    if stored is None:
        raise SystemExit("the winner has no outcomes")
    from search.plan import make_plan

    asked = {example.id: example for example in make_plan(record.config).split.validation}
    model = AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    same, worst = 0, 0.0
    for outcome in stored.outcomes:
        example = asked[outcome.example_id]
        with torch.no_grad():
            logits = model(**tokenizer(example.prompt, return_tensors="pt")).logits[0]
        right = int(logits.argmax()) == example.label
        same += right == bool(outcome.score)
        probability = torch.log_softmax(logits, -1)[example.label].item()
        worst = max(worst, abs(probability - outcome.log_probability))
    return {"examples": len(stored.outcomes), "same": same, "worst_log_probability": worst}


def main() -> None:
    """Train, search, export, compare; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=100, help="0 trains the model alone")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-4, help="the largest learning rate")
    parser.add_argument("--noise", type=float, default=0.0, help="share of wrong training labels")
    asked = parser.parse_args()
    model, study, exported = (asked.out / name for name in ("bert-sst2", "study", "exported"))
    if not (model / "config.json").exists():
        rows = flip(read(asked.train), asked.noise)
        train(rows, model, asked.layers, asked.epochs, asked.width, asked.rate)
    if not asked.trials:
        return
    config = {
        "model": {"path": str(model.resolve())},
        "task": {"name": "sst2", "data": str(asked.data.resolve())},
        "search": {"trials": asked.trials},
        "factors": str((asked.out / "factors").resolve()),
    }
    (asked.out / "study.yaml").write_text(yaml.safe_dump(config))
    started = time.perf_counter()
    launch = [*PROGRAM, "launch", str(asked.out / "study.yaml"), "--out", str(study)]
    subprocess.run(launch, check=True)
    seconds = time.perf_counter() - started
    subprocess.run([*PROGRAM, "export", str(study), "--out", str(exported), "--anyway"], check=True)
    found = compare(study, exported, read(asked.data))
    states = Counter(trial.state.name for trial in StudyRecord.read(study).trials)
    print(json.dumps({"wall_s": round(seconds, 1), "trials": dict(states), **found}))


if __name__ == "__main__":
    main()
