"""Flip single bits of outcome files, factor files and the journal; count what is read wrongly.

    python benchmarks/flips.py [--flips 10000] [--seed 0]

A small study is made in a temporary folder: outcomes with the columns that tasks write, a journal
of 60 trials, factors of 48 matrices. Each flip is of one bit anywhere in one file, drawn at random;
the file is read as the program reads it, and put back. Read wrongly: without complaint, and not
equal to what was written. Exit code 1 if anything was.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState, create_trial

from search.study.journal import JOURNAL
from search.study.outcomes import Evaluation, outcome_bytes, parse_outcomes
from search.study.storages import open_storage
from search.weights.factor_file import DamagedFactorsError, FactorFile
from search.weights.factors import FactorCache
from tasks.base import Outcome
from tasks.errors import InputError

Reader = Callable[[], object]
"""Reads a file as the program does; None where it says that the file is damaged."""


def outcome_readers(folder: Path, draw: random.Random) -> dict[Path, Reader]:
    """Twenty evaluations of 200 questions."""
    readers: dict[Path, Reader] = {}
    for number in range(20):
        rows = tuple(
            Outcome(
                *(f"e{i:05d}", f"g{i // 3}", float(draw.random() < 0.5), -8 * draw.random()),
                draw.choice(["Paris", "Rome", "Madrid"]),
                tokens=draw.randrange(1, 4),
                measures={"f1": draw.random()},
            )
            for i in range(200)
        )
        found = Evaluation(
            *(f"trial-{number:05d}", "study", "3.fc_in=0.5", f"effect {number}", "validation"),
            *(draw.random(), draw.random(), {"total": draw.random()}, rows),
        )
        path = folder / f"{found.name}.parquet"
        path.write_bytes(outcome_bytes(found))

        def read(path: Path = path, effect: str = found.effect) -> object:
            return parse_outcomes(path.read_bytes(), "study", effect)

        readers[path] = read
    return readers


def journal_reader(folder: Path, draw: random.Random) -> dict[Path, Reader]:
    """A journal of 60 trials, read whole."""
    storage = open_storage(folder, None)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    space = {"rho": optuna.distributions.FloatDistribution(0, 1)}
    for number in range(60):
        values = {"params": {"rho": draw.random()}, "distributions": space}
        attributes = {"effect": f"3.fc_in=keep-top:{number}", "log_loss": draw.random()}
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=draw.random(), user_attrs=attributes, **values
            )
        )

    def read() -> object:
        try:
            return [
                (t.number, t.state, t.values, t.params, t.user_attrs, t.datetime_start)
                for t in open_storage(folder, None).get_all_trials(0)
            ]
        except InputError:
            return None

    return {folder / JOURNAL: read}


def factor_readers(folder: Path, draw: random.Random) -> dict[Path, Reader]:
    """Factors of 48 random matrices, read whole."""
    cache = FactorCache(folder)
    readers: dict[Path, Reader] = {}
    for _ in range(48):
        shape = (draw.randrange(16, 65), draw.randrange(16, 65))
        weight = torch.randn(*shape, generator=torch.Generator().manual_seed(draw.randrange(2**31)))
        key = cache.key(weight)
        cache.ensure(weight, key, "model/0.fc_in")

        path = cache.path(key)

        def read(path: Path = path, key: str = key) -> object:
            try:
                file = FactorFile(path)
                FactorCache._check_key(file, key)
                rows = file.rows(0, file.rank)
            except DamagedFactorsError:
                return None
            return file.metadata, *(part.numpy().tobytes() for part in (file.spectrum, *rows))

        readers[path] = read
    return readers


def flip_all(
    readers: dict[Path, Reader], flips: int, draw: random.Random
) -> tuple[Counter[str], list[str]]:
    """What became of `flips` flips, and where those that were read wrongly are."""
    whole = {path: (path.read_bytes(), read()) for path, read in readers.items()}
    if any(found is None for _, found in whole.values()):
        raise AssertionError("a whole file was called damaged")
    counts: Counter[str] = Counter()
    wrong = []
    for _ in range(flips):
        path = draw.choice(list(readers))
        data, wanted = whole[path]
        bit = draw.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        found = readers[path]()
        if found is None:
            counts["said to be damaged"] += 1
        elif found == wanted:
            counts["read as written"] += 1
        else:
            counts["read wrongly"] += 1
            wrong.append(f"{path.name} bit {bit}")
        path.write_bytes(data)
    return counts, wrong


def main() -> None:
    """Flip, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw = random.Random(chosen.seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {"outcomes": outcome_readers, "factors": factor_readers, "journal": journal_reader}
    shares = {"outcomes": 0.4, "factors": 0.4, "journal": 0.2}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for kind, make in kinds.items():
            folder = Path(name) / kind
            folder.mkdir()
            started = time.perf_counter()
            counts, found = flip_all(make(folder, draw), round(shares[kind] * chosen.flips), draw)
            wrong += found
            said = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
            seconds = time.perf_counter() - started
            print(f"{kind}: {sum(counts.values())} flips, {said} ({seconds:.0f} s)")
    print(f"read wrongly: {len(wrong)} of {chosen.flips}", *wrong[:20], sep="\n  ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
