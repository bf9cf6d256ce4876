"""The figures of docs/demo.md: what rank reduction finds in the demonstration, and controls.

    python benchmarks/demo_controls.py

Independent of the search on purpose: plain transformers, ``torch.linalg.svd`` in float64, and every
matrix really replaced, so that it can also contradict the program. One thread, about six minutes,
of which two train the control model without corruption.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import search.demo
from search.demo.train import train
from search.demo.world import FREQUENCIES, build_world, generic_word

FOLDER = Path(search.demo.__file__).parent
MLP = ("fc_in", "fc_out")
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
RHOS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)

Kind = Literal["top", "bottom", "random", "zero"]
Matrix = tuple[int, str]
Edits = dict[Matrix, float]


@dataclass(frozen=True)
class Score:
    """Right answers, generic words said wrongly, and the places of the right ones, per question."""

    right: tuple[bool, ...]
    generic: float
    frequencies: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)

    def __str__(self) -> str:
        split = []
        for frequency in FREQUENCIES:
            pairs = zip(self.right, self.frequencies, strict=True)
            mine = [right for right, its in pairs if its == frequency]
            split.append(f"{sum(mine) / len(mine):.3f}")
        return f"{self.accuracy:.3f} | {' | '.join(split)} | {self.generic:.3f}"


class Questions:
    """Questions of some names as batches of equal length: no padding that could matter."""

    def __init__(self, rows: list[dict[str, str]], tokenizer: AutoTokenizer) -> None:
        by_length = defaultdict(list)
        for row in rows:
            by_length[len(tokenizer(row["prompt"]).input_ids)].append(row)
        self.rows = [row for rows in by_length.values() for row in rows]
        self.batches = [
            tokenizer([row["prompt"] for row in rows], return_tensors="pt").input_ids
            for rows in by_length.values()
        ]
        self.answers = torch.tensor([tokenizer(row["answer"]).input_ids[0] for row in self.rows])
        relations = [row["id"].split("-")[1] for row in self.rows]
        self.generic = torch.tensor([tokenizer(generic_word(r)).input_ids[0] for r in relations])
        self.frequencies = tuple(row["frequency"] for row in self.rows)


class Bench:
    """A model whose matrices are replaced for one evaluation at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()
        self.original = {
            matrix: self._weight(matrix).clone()
            for matrix in itertools.product(range(model.config.n_layer), MLP + ATTENTION)
        }
        self.factors = {
            matrix: torch.linalg.svd(weight.double(), full_matrices=False)
            for matrix, weight in self.original.items()
        }

    def _weight(self, matrix: Matrix) -> Tensor:
        layer, name = matrix
        block = self.model.transformer.h[layer]
        return getattr(block.mlp if name in MLP else block.attn, name).weight.data

    def reduced(self, matrix: Matrix, rho: float, kind: Kind, seed: int = 0) -> Tensor:
        """`matrix` [out, in] at rank floor(rho * max rank), at least 1, in the way of `kind`."""
        u, s, vh = self.factors[matrix]
        rank = max(1, int(rho * len(s) + 1e-9))
        if kind == "zero":
            return torch.zeros_like(self.original[matrix])
        if kind == "random":  # the matrix seen through random output directions
            generator = torch.Generator().manual_seed(seed)
            draw = torch.randn(len(u), rank, generator=generator, dtype=u.dtype)
            basis = torch.linalg.qr(draw).Q
            return (basis @ (basis.T @ self.original[matrix].double())).float()
        kept = slice(0, rank) if kind == "top" else slice(len(s) - rank, len(s))
        return ((u[:, kept] * s[kept]) @ vh[kept]).float()

    @torch.no_grad()
    def score(self, questions: Questions, edits: Edits, kind: Kind = "top", seed: int = 0) -> Score:
        """Accuracy of the model's first choice with `edits` applied; the weights are put back."""
        for matrix, rho in edits.items():
            self._weight(matrix).copy_(self.reduced(matrix, rho, kind, seed))
        said = torch.cat([self.model(ids).logits[:, -1].argmax(-1) for ids in questions.batches])
        for matrix in edits:
            self._weight(matrix).copy_(self.original[matrix])
        right = said == questions.answers
        generic = (said == questions.generic) & ~right
        return Score(tuple(right.tolist()), generic.float().mean().item(), questions.frequencies)

    def singles(
        self, questions: Questions, names: tuple[str, ...], edits: Edits, kind: Kind = "top"
    ):
        """Validation accuracy of every one-matrix extension of `edits`, best first."""
        grid = itertools.product(range(self.model.config.n_layer), names, RHOS)
        tried = [
            (
                self.score(questions, {**edits, (layer, name): rho}, kind).accuracy,
                (layer, name),
                rho,
            )
            for layer, name, rho in grid
            if (layer, name) not in edits
        ]
        return sorted(tried, key=lambda row: -row[0])

    def greedy(self, questions: Questions, most: int = 3) -> list[Edits]:
        """Best single, then the best extension of it while validation improves."""
        found: list[Edits] = []
        edits: Edits = {}
        best = self.score(questions, {}).accuracy
        for _ in range(most):
            accuracy, matrix, rho = self.singles(questions, MLP, edits)[0]
            if accuracy <= best:
                break
            best, edits = accuracy, {**edits, matrix: rho}
            found.append(edits)
        return found

    def random_compositions(self, questions: Questions, trials: int) -> tuple[float, Edits]:
        """Best on validation of `trials` uniform compositions of one to three matrices."""
        rng = Random(0)
        places = list(itertools.product(range(self.model.config.n_layer), MLP))
        tried = []
        for _ in range(trials):
            chosen = rng.sample(places, rng.randint(1, 3))
            edits = {matrix: rng.choice(RHOS) for matrix in chosen}
            tried.append((self.score(questions, edits).accuracy, edits))
        return max(tried, key=lambda row: row[0])


def text(edits: Edits) -> str:
    return ", ".join(f"{layer}.{name}={rho}" for (layer, name), rho in edits.items()) or "none"


def split(rows: list[dict[str, str]], tokenizer: AutoTokenizer) -> tuple[Questions, Questions]:
    """Halves with disjoint names, in the order of the hash of the name."""
    names = {row["group"] for row in rows}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    first = set(order[: len(order) // 2])
    validation = [row for row in rows if row["group"] in first]
    test = [row for row in rows if row["group"] not in first]
    return Questions(validation, tokenizer), Questions(test, tokenizer)


def report_search(bench: Bench, validation: Questions, test: Questions) -> list[Edits]:
    """The table of singles, then what greedy extension and random draws find."""
    print("\nvalidation accuracy of every single reduction")
    table = {(m, rho): a for a, m, rho in bench.singles(validation, MLP, {})}
    print("| matrix | " + " | ".join(map(str, RHOS)) + " |")
    for matrix in itertools.product(range(bench.model.config.n_layer), MLP):
        cells = " | ".join(f"{table[matrix, rho]:.3f}" for rho in RHOS)
        print(f"| {matrix[0]}.{matrix[1]} | {cells} |")
    found = bench.greedy(validation)
    print("\n| kept | validation | test | frequent | middle | rare | wrong and generic |")
    for edits in [{}, *found]:
        accuracy = bench.score(validation, edits).accuracy
        print(f"| {text(edits)} | {accuracy:.3f} | {bench.score(test, edits)} |")
    return found


def report_random(bench: Bench, validation: Questions, test: Questions, trials: int) -> None:
    accuracy, edits = bench.random_compositions(validation, trials)
    test_accuracy = bench.score(test, edits).accuracy
    print(f"\nbest of {trials} random compositions: {text(edits)}: ", end="")
    print(f"validation {accuracy:.3f}, test {test_accuracy:.3f}")
    accuracy, matrix, rho = bench.singles(validation, ATTENTION, {})[0]
    test_accuracy = bench.score(test, {matrix: rho}).accuracy
    print(f"best single attention matrix: {text({matrix: rho})}: ", end="")
    print(f"validation {accuracy:.3f}, test {test_accuracy:.3f}")


def report_controls(
    bench: Bench, validation: Questions, test: Questions, found: list[Edits]
) -> None:
    """The same ranks from other directions, and the best that those directions can do at all."""
    print("\ntest accuracy at the same ranks")
    print("| kept | top | random, mean of 20 (highest) | bottom | zero |")
    for edits in found:
        draws = [bench.score(test, edits, "random", seed).accuracy for seed in range(20)]
        top, bottom, zero = (
            bench.score(test, edits, kind).accuracy for kind in ("top", "bottom", "zero")
        )
        mean = sum(draws) / len(draws)
        print(f"| {text(edits)} | {top:.3f} | {mean:.3f} ({max(draws):.3f}) | ", end="")
        print(f"{bottom:.3f} | {zero:.3f} |")
    for kind, seeds in (("random", 20), ("bottom", 1)):
        accuracy, matrix, rho = bench.singles(validation, MLP, {}, kind)[0]
        tests = [bench.score(test, {matrix: rho}, kind, seed).accuracy for seed in range(seeds)]
        print(f"best single of kind {kind}: {text({matrix: rho})}: ", end="")
        print(f"validation {accuracy:.3f}, test {tests[0]:.3f}", end="")
        print(f", mean test of {seeds} draws {sum(tests) / seeds:.3f}")


def report_uncorrupted(validation: Questions, test: Questions, seed: int) -> None:
    """The same world told truthfully: nothing to remove."""
    bench = Bench(train(build_world(seed), seed, corruption=0.0)[0])
    print("\ntrained without corruption")
    print(f"base: validation {bench.score(validation, {}).accuracy:.3f}, ", end="")
    print(f"test {bench.score(test, {}).accuracy:.3f}")
    accuracy, matrix, rho = bench.singles(validation, MLP, {})[0]
    print(f"best single: {text({matrix: rho})}: validation {accuracy:.3f}, ", end="")
    print(f"test {bench.score(test, {matrix: rho}).accuracy:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="holds model/ and questions")
    parser.add_argument("--seed", type=int, default=0, help="of the world, for the control model")
    parser.add_argument("--random", type=int, default=300, help="random compositions to try")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "model")
    lines = (arguments.folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    validation, test = split([json.loads(line) for line in lines], tokenizer)
    print(f"{len(validation.rows)} validation and {len(test.rows)} test questions")
    bench = Bench(model)
    found = report_search(bench, validation, test)
    report_random(bench, validation, test, arguments.random)
    report_controls(bench, validation, test, found)
    report_uncorrupted(validation, test, arguments.seed)


if __name__ == "__main__":
    main()
