"""Peak memory of a dense export of a sharded checkpoint, against its largest shard.

    python benchmarks/export_memory.py --gib 4 --shards 4 --out ./scratch

Writes a Llama-shaped bfloat16 checkpoint of random numbers, shard by shard, a study of it with one
trial, and the factors that the trial needs; then runs `laser-search export --no-verify` in a
process of its own, whose peak resident memory the system reports. Only what is edited is loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import create_trial
from safetensors.torch import save_file
from transformers import AutoConfig

from search.config import parse_config, write_config
from search.cuts.composition import Composition
from search.model import ModelSource
from search.origin import WeightOrigin
from search.study.identity import Digests, Identity, digest_checkpoint
from search.study.storages import open_storage
from search.study.study_record import CONFIG
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices

HIDDEN, INNER = 2048, 5632
MEASURED = """
import contextlib, pathlib
from cluster.cli import main
with contextlib.suppress(SystemExit):
    main()
status = pathlib.Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")))
"""
"""The program, and then its own peak: the system's figure for children counts their parent too."""
CUTS = "1.fc_in=rank:100 2.q_proj=rank:64"


def write_checkpoint(folder: Path, gib: float, shards: int) -> int:
    """A checkpoint of about `gib` in `shards` files; returns the bytes of the largest."""
    folder.mkdir(parents=True)
    layer = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)
    layers = max(3, round((gib * 2**30) / layer))
    config = AutoConfig.for_model(
        "llama",
        vocab_size=1000,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=16,
    )
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    config.save_pretrained(folder)
    model = ModelSource(str(folder)).skeleton()
    names = [name for name in model.state_dict() if "rotary" not in name]
    total = sum(model.state_dict()[name].numel() * 2 for name in names)
    generator, places, part = torch.Generator().manual_seed(0), {}, {}
    size, number, largest = 0, 1, 0
    for index, name in enumerate(names):
        shape = model.state_dict()[name].shape
        part[name] = torch.randn(shape, generator=generator).to(torch.bfloat16)
        size += part[name].numel() * 2
        if size >= total / shards or index == len(names) - 1:
            file = f"model-{number:05d}-of-{shards:05d}.safetensors"
            save_file(part, folder / file, {"format": "pt"})
            places |= dict.fromkeys(part, file)
            largest = max(largest, (folder / file).stat().st_size)
            part, size, number = {}, 0, number + 1
    index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index_text)
    return largest


def write_study(folder: Path, base: Path, factors: Path) -> None:
    """A study with one finished trial, and the factors of the matrices that it edits."""
    settings: dict[str, Any] = {
        "model": {"path": str(base)},
        "task": {"name": "jsonl", "data": "questions.jsonl"},
        "factors": str(factors),
    }
    config = parse_config(settings, "benchmark")
    source = config.model.source()
    composition = Composition.parse(CUTS.split())
    matrices = {m.ref: m for m in find_matrices(source.skeleton())}
    origin = WeightOrigin(source)
    with FactorCache(factors) as cache:
        for intervention in composition.interventions:
            weight = origin.read(matrices[intervention.matrix])
            cache.ensure(weight, cache.key(weight), "benchmark", rank=100)
    identity = Identity.new(Digests("", digest_checkpoint(source.folder), "", ""))
    folder.mkdir()
    identity.write(folder)
    write_config(config, folder / CONFIG)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=identity.study_id, storage=open_storage(folder, None), direction="maximize"
    )
    effect = composition.effect({ref: min(m.shape) for ref, m in matrices.items()})
    facts = {"composition": str(composition), "effect": effect, "log_loss": 1.0}
    study.add_trial(create_trial(value=0.5, user_attrs=facts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", default="dense")
    asked = parser.parse_args()
    base, study = asked.out / "base", asked.out / "study"
    if not study.exists():
        write_checkpoint(base, asked.gib, asked.shards)
        write_study(study, base, asked.out / "factors")
    sizes = [path.stat().st_size for path in base.glob("*.safetensors")]
    command = [sys.executable, "-c", MEASURED, "export", str(study), "--trial", "0"]
    command += ["--out", str(asked.out / "model"), "--no-verify", "--overwrite"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--format", asked.format], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    peak = int(done.stdout.split()[-2]) * 1024
    gib = 2**30
    print(
        f"{asked.format}: checkpoint {sum(sizes) / gib:.2f} GiB in {len(sizes)} files, largest "
        f"{max(sizes) / gib:.2f} GiB; peak {peak / gib:.2f} GiB = {peak / max(sizes):.2f} of the "
        f"largest; {seconds:.0f} s"
    )
    return int(peak >= 1.5 * max(sizes))


if __name__ == "__main__":
    sys.exit(main())
