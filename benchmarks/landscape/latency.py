"""How long each strategy takes to suggest after many finished trials.

    python benchmarks/landscape/latency.py --strategies random tpe --finished 100 1000 5000

The space of a model of 32 layers: seven matrix types, the paper's nine rho, up to five cuts. The
history is random compositions with a smooth score. CPU milliseconds per suggestion, each told its
score before the next is asked for: the median of `--repeats`, and the first, which reads the
history.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import numpy as np
from optuna.trial import TrialState

from search.cuts.composition import Composition, Intervention
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.sections import PAPER_RHO, SearchConfig
from search.space import Space
from search.strategies.base import BASELINE_NUMBER, History, Setting, Tried
from search.strategies.registry import make_strategy
from search.weights.spectra import Spectrum

TYPES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_up", "fc_out")
LAYERS, RANK = 32, 4096


def space() -> Space:
    """All matrices of a model of 32 layers."""
    matrices = [MatrixRef.parse(f"{n}.{kind}") for n in range(LAYERS) for kind in TYPES]
    return Space(tuple(matrices), Ladder.of_rho(PAPER_RHO), 5)


def drawn(rng: random.Random, over: Space) -> Composition:
    """A random composition."""
    chosen = rng.sample(over.matrices, rng.randint(1, over.max_interventions))
    return Composition(tuple(Intervention(m, rng.choice(over.levels)) for m in chosen))


def tried(history: History, composition: Composition) -> Tried:
    """A finished trial with a smooth score."""
    score = sum(
        (1 - abs(cut.matrix.layer - 24) / LAYERS) * (0.5 - abs(cut.rule.value - 0.1))
        for cut in composition.interventions
    )
    number, effect = len(history), history.effect(composition)
    return Tried(number, composition, effect, TrialState.COMPLETE, (score,), 1 - score)


def setting(over: Space, ranks: dict[MatrixRef, int]) -> Setting:
    """What strategies are given: a screen and spectra at random."""
    rng = np.random.default_rng(0)
    screen = {
        Intervention(ref, level): float(rng.normal())
        for ref in over.matrices
        for level in over.levels
    }
    spectra = {
        ref: Spectrum(str(ref), "", "", (RANK, RANK), np.sort(rng.exponential(size=RANK))[::-1])
        for ref in over.matrices
    }
    return Setting(over, ranks, screen=screen, spectra=spectra)


def measure(name: str, finished: int, repeats: int, **settings: Any) -> tuple[float, float]:
    """CPU milliseconds of the first suggestion and the median of the next."""
    over = space()
    ranks = dict.fromkeys(over.matrices, RANK)
    history = History(ranks, finished + repeats)
    history.put(Tried(BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, (0.0,), 1.0))
    rng = random.Random(0)
    while len(history) < finished:
        composition = drawn(rng, over)
        if history.is_new(composition):
            history.put(tried(history, composition))
    config = SearchConfig(strategy=name, trials=finished + repeats, **settings)
    strategy = make_strategy(config, setting(over, ranks))
    taken = []
    for _ in range(repeats + 1):
        started = time.process_time()
        suggested = strategy.suggest(history)
        taken.append(1e3 * (time.process_time() - started))
        if suggested is None:
            break
        history.put(tried(history, suggested))
    return taken[0], statistics.median(taken[1:] or taken)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategies", nargs="+", default=["random", "tpe"])
    parser.add_argument("--encodings", nargs="+", default=["slots", "sites"])
    parser.add_argument("--finished", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(f"| strategy | {' | '.join(f'after {n}' for n in asked.finished)} |")
    print(f"|---|{'---|' * len(asked.finished)}")
    for name in asked.strategies:
        for encoding in asked.encodings if name == "tpe" else asked.encodings[:1]:
            cells = []
            for finished in asked.finished:
                first, usual = measure(name, finished, asked.repeats, encoding=encoding)
                cells.append(f"{usual:.1f} (first {first:.0f})")
            label = f"{name}, {encoding}" if name == "tpe" else name
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
