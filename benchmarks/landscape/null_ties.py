"""Does a verdict claim gains where answers are shuffled and logits tie? Studies of made-up replies.

    python benchmarks/landscape/null_ties.py --studies 100

Every study has its own questions of four choices, in half of the studies with some answers commoner
than others, and right answers drawn at random, so that no cut can help. Its cuts reply in one of
these ways, in float32 and in bfloat16: at random; with logits that round to the same (bfloat16 near
16); with two, three or all choices equal; with one choice for all; with the first or last choice
tied with the best. The winner is the best of the cuts on validation; test is judged as in a study.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray

from search.study.verdict import Verdict
from search.study.verdict_claim import claim_of
from tasks.answers import at_top, score_chosen
from tasks.base import Chosen, Example, Outcome
from tasks.comparison import compare
from tasks.scoring import summarise

CHOICES = ("a", "b", "c", "d")
KINDS = ("random", "rounded", "two", "three", "all", "constant", "first", "last")
Floats = NDArray[np.float32]


def replies(rng: np.random.Generator, kind: str, dtype: torch.dtype, questions: int) -> Floats:
    """Log-probabilities [questions, choices] of a vocabulary's four tokens."""
    logits = rng.normal(size=(questions, 4)).astype(np.float32)
    if kind == "rounded":
        logits = logits / 8 + 16
    if kind in ("two", "three", "all"):
        logits[:, : {"two": 2, "three": 3, "all": 4}[kind]] = 3.0
    if kind == "constant":
        logits[:, rng.integers(4)] += 20
    if kind in ("first", "last"):
        logits = np.round(logits)
        logits[:, 0 if kind == "first" else 3] = logits.max(1)
    return torch.from_numpy(logits).to(dtype).float().log_softmax(-1).numpy()


def outcomes(found: Floats, examples: list[Example]) -> list[Outcome]:
    """Scored as any study scores a choice."""
    return [
        score_chosen(x, Chosen(tuple(map(float, row)), (1,) * 4))
        for x, row in zip(examples, found, strict=True)
    ]


def judge(seed: int, questions: int, trials: int) -> tuple[Verdict, str]:
    """One study: the verdict on test, and how its winner replies."""
    rng = np.random.default_rng(seed)
    odds = [0.25] * 4 if seed % 2 else [0.4, 0.3, 0.2, 0.1]
    labels = rng.choice(4, questions * 2, p=odds)
    examples = [
        Example(str(n), str(n // 2), "?", CHOICES[k], CHOICES, int(k)) for n, k in enumerate(labels)
    ]
    cuts = [
        (kind, dtype)
        for kind in rng.choice(KINDS, trials + 1).tolist()
        for dtype in [(torch.float32, torch.bfloat16)[rng.integers(2)]]
    ]
    said = [replies(rng, kind, dtype, questions * 2) for kind, dtype in cuts]
    share = []
    for found in said:
        tops = [at_top(tuple(map(float, row))) for row in found[:questions]]
        share.append(
            np.mean(
                [(k in top) / len(top) for k, top in zip(labels[:questions], tops, strict=True)]
            )
        )
    winner = int(np.argmax(share))
    test = examples[questions:]
    sides = {
        "baseline": outcomes(said[0][questions:], test),
        "winner": outcomes(said[winner][questions:], test),
    }
    scores = {side: {"test": summarise(found, test)} for side, found in sides.items()}
    compared = {"test": compare(sides["baseline"], sides["winner"], resamples=2000)}
    verdict = Verdict(winner, "cut", scores, compared, {}, metric="accuracy")
    return verdict, f"{cuts[winner][0]} {str(cuts[winner][1]).removeprefix('torch.')}"


def main() -> None:
    """Count the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--questions", type=int, default=200, help="Of validation, and of test.")
    parser.add_argument("--trials", type=int, default=30)
    asked = parser.parse_args()
    kinds, claims, rises = Counter[str](), Counter[str](), 0
    for seed in range(asked.studies):
        verdict, kind = judge(seed, asked.questions, asked.trials)
        kinds[kind] += 1
        rises += verdict.comparisons["test"].direction == 1
        claims[kind] += claim_of(verdict).supported
    print(f"{asked.studies} studies; winners: {dict(kinds.most_common())}")
    print(f"clear by the paired test alone: {rises}; claimed: {claims.total()} {dict(+claims)}")


if __name__ == "__main__":
    main()
