"""Build the tables: every single cut of a model, and a large sample of pairs and triples.

    python benchmarks/landscape/build.py demo --out ./landscape
    python benchmarks/landscape/build.py sst2 --out ./landscape \
        --model ./sst2-run/bert-sst2 --data sst2-dev.tsv

Each composition is evaluated on validation and on test, question by question. Half of the sample is
made of parts that help most by themselves, half of parts at random. Stopped and started again, the
script goes on where it was.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from table import Landscape

from search.config import StudyConfig, parse_config
from search.cuts.composition import Composition
from search.demo.study import demo_config

PROMISING = 0.15
"""The share of single cuts that counts as promising."""


def configure(name: str, folder: Path, model: Path | None, data: Path | None) -> StudyConfig:
    """The study whose space the table covers: all layers, all types, the paper's nine rho."""
    space = {"matrices": ["all"], "max_interventions": 3}
    if name == "demo":
        settings: dict[str, Any] = demo_config(folder).model_dump(mode="json")
        settings["space"] |= space
        return parse_config(settings, "demo")
    if model is None or data is None:
        raise SystemExit(f"{name} needs --model and --data")
    return parse_config(
        {
            "model": {"path": str(model.resolve())},
            "task": {"name": "sst2", "data": str(data.resolve())},
            "split": {"validation": 0.5},
            "space": space,
            "factors": str(folder.resolve() / "factors"),
        },
        name,
    )


def sample(landscape: Landscape, size: int, count: int, seed: int = 0) -> list[Composition]:
    """`count` compositions of `size` parts, half of them promising ones, the rest at random."""
    known = landscape.effects()
    parts = list(landscape.grid().values())
    parts.sort(key=lambda part: (-known[landscape.effect(part)].score, str(part)))
    best = parts[: max(size, int(PROMISING * len(parts)))]
    rng = random.Random(seed)
    found: dict[str, Composition] = {}
    while len(found) < count:
        pool = best if rng.random() < 0.5 else parts
        drawn = [part.interventions[0] for part in rng.sample(pool, size)]
        if len({cut.matrix for cut in drawn}) == size:
            composition = Composition(tuple(drawn))
            found.setdefault(landscape.effect(composition), composition)
    return list(found.values())


def fill(landscape: Landscape, compositions: list[Composition], what: str) -> None:
    """Evaluate what is not known, in an order in which neighbours share work."""
    wanted = {landscape.effect(composition): composition for composition in compositions}
    started, done = time.perf_counter(), 0
    for effect in sorted(wanted):
        for part in ("validation", "test"):
            if not landscape.knows(effect, part):
                landscape.truth(wanted[effect], part)
                done += 1
                if done % 200 == 0:
                    landscape.save()
                    rate = (time.perf_counter() - started) / done
                    print(f"{what}: {done} evaluated, {rate:.2f} s each", file=sys.stderr)
    landscape.save()
    print(f"{what}: {len(wanted)} effects, {done} evaluated now", flush=True)


def main() -> None:
    """Build one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="demo, or what a classifier of --model is to be called")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--triples", type=int, default=800)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = asked.out / asked.name
    landscape = Landscape.create(configure(asked.name, folder, asked.model, asked.data), folder)
    fill(landscape, [Composition(), *landscape.grid().values()], "singles")
    fill(landscape, sample(landscape, 2, asked.pairs), "pairs")
    fill(landscape, sample(landscape, 3, asked.triples), "triples")


if __name__ == "__main__":
    main()
