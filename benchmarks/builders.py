"""A killed `laser-search decompose`, and two at once: nothing is computed twice.

    python benchmarks/builders.py

Real runs of the program, each with a Ray of its own, on a random GPT-2. The first is ended by
SIGKILL half way and run again; then two start together on a new folder. Fails where a finished file
was written again or a matrix was computed twice.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

WIDTH, LAYERS, MATRICES = 512, 4, 24


def start(model: Path, factors: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.cli", "decompose", str(model)]
    return subprocess.Popen(
        [*command, "--factors", str(factors)], stdout=subprocess.PIPE, text=True
    )


def counts(run: subprocess.Popen[str]) -> tuple[int, int]:
    """(computed, ready) as a run that ended well says them."""
    text, _ = run.communicate(timeout=400)
    found = re.search(r"(\d+) matrices decomposed in \d+ s, (\d+) were ready", text)
    if run.returncode or found is None:
        raise SystemExit(f"decompose failed ({run.returncode}): {text}")
    return int(found[1]), int(found[2])


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was written again: its inode and time of change."""
    paths = folder.glob("??/*.safetensors")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def killed(model: Path, factors: Path) -> None:
    run = start(model, factors)
    while len(files(factors)) < MATRICES // 2:
        expect(run.poll() is None, "the run ended before it could be killed")
        time.sleep(0.005)
    run.kill()
    run.wait()
    before = files(factors)
    began = time.monotonic()
    computed, ready = counts(start(model, factors))
    after = files(factors)
    print(
        f"killed with {len(before)} of {MATRICES} finished; the next run computed {computed}, "
        f"found {ready} ready, {time.monotonic() - began:.1f} s with the start of Ray"
    )
    expect(before.items() <= after.items(), "a finished file was written again")
    expect(computed + ready == len(after) == MATRICES, "a matrix is missing")
    expect(computed <= MATRICES - len(before), "a finished matrix was computed again")


def together(model: Path, factors: Path) -> None:
    began = time.monotonic()
    runs = [start(model, factors) for _ in range(2)]
    found = [counts(run) for run in runs]
    shares = [computed for computed, _ in found]
    print(f"two at once computed {shares}, {time.monotonic() - began:.1f} s")
    expect(sum(shares) == len(files(factors)) == MATRICES, "a matrix was computed twice")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        config = GPT2Config(n_layer=LAYERS, n_embd=WIDTH, n_head=8, vocab_size=100, n_positions=64)
        config.bos_token_id = config.eos_token_id = None
        model = Path(name) / "model"
        GPT2LMHeadModel(config).save_pretrained(model)
        killed(model, Path(name) / "killed")
        together(model, Path(name) / "together")


if __name__ == "__main__":
    main()
