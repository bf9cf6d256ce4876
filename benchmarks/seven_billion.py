"""A model near the size of memory, as a whole study: what the plan says against what is taken.

    python benchmarks/seven_billion.py --out seven     # 13.5 GB of disk; 24 GB of memory, no GPU
    python benchmarks/seven_billion.py --out seven --tiny

Writes a folder of Llama-2-7B's shape in bfloat16, shard by shard, with seeded random weights and a
tokenizer of 32,000 words; then plans, launches and exports a study of `fc_in` of its last four
blocks through the command line, with `model.mapped`, and prints a table. What processes
hold in memory of their own (RssAnon: no page of a file) is sampled from /proc. Each step is
written to ``results.json`` when it is done and not done again; a launch that was interrupted is
resumed. The weights mean nothing, so the scores do not either.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import psutil
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from search.durable import write_text
from search.model import ModelSource

BLOCKS, LAST = 32, 4
PROGRAM = [sys.executable, "-m", "laser_search"]
MARK = "SEVEN_BILLION_RUN"
"""Environment variable by which a step's processes are known, those of its Ray too."""
SAMPLE_S = 0.25


@dataclass(frozen=True)
class Shape:
    """A Llama's, `shard_blocks` of whose blocks make a file."""

    width: int
    inner: int
    blocks: int
    heads: int
    words: int
    shard_blocks: int

    def config(self) -> Any:
        """What transformers builds the model from."""
        config = AutoConfig.for_model(
            "llama",
            vocab_size=self.words,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.blocks,
            num_attention_heads=self.heads,
            bos_token_id=None,
            eos_token_id=1,
        )
        config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
        return config


LLAMA_2_7B = Shape(4096, 11008, BLOCKS, 32, 32000, 8)
TINY = Shape(64, 160, 6, 4, 512, 2)


def write_model(folder: Path, shape: Shape) -> None:
    """The checkpoint and its tokenizer; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    shape.config().save_pretrained(folder)
    words = {"<unk>": 0, "<end>": 1} | {f"w{n}": n for n in range(2, shape.words)}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    with torch.device("meta"):
        sizes = {n: tuple(p.shape) for n, p in LlamaForCausalLM(shape.config()).named_parameters()}
    shards = -(-shape.blocks // shape.shard_blocks)
    parts: dict[str, list[str]] = defaultdict(list)
    for name in sizes:
        at = int(name.split(".")[2]) // shape.shard_blocks if ".layers." in name else shards
        parts[f"model-{at + 1:05d}-of-{shards + 1:05d}.safetensors"].append(name)
    for file, names in parts.items():
        if not (folder / file).exists():
            drawn = {name: weights(name, sizes[name]) for name in names}
            save_file(drawn, folder / f"{file}.part", {"format": "pt"})
            (folder / f"{file}.part").rename(folder / file)
    places = {name: file for file, names in parts.items() for name in names}
    total = sum(2 * torch.Size(size).numel() for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_text(folder / "model.safetensors.index.json", json.dumps(index))


def weights(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """What a new model is given, seeded by the name: norms are ones, all else N(0, 0.02²)."""
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    return torch.randn(size, generator=generator).mul_(0.02).to(torch.bfloat16)


def write_questions(path: Path, words: int, count: int = 24) -> None:
    """Prompts of eight words; one of two words is the answer. No more than to say something."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        prompt = " ".join(f"w{draw.randrange(2, words)}" for _ in range(8))
        choices = [f"w{n}" for n in draw.sample(range(2, words), 2)]
        rows.append({"prompt": prompt, "answer": draw.choice(choices), "choices": choices})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(out: Path, shape: Shape, trials: int = 10) -> dict[str, Any]:
    """study.yaml: half of the questions, eight single cuts, and some that combine them."""
    return {
        "model": {"path": str(out / "model"), "mapped": True},
        "task": {"name": "jsonl", "data": str(out / "questions.jsonl")},
        "split": {"validation": 0.5},
        "space": {
            "layers": [f"{shape.blocks - LAST}-{shape.blocks - 1}"],
            "matrices": ["fc_in"],
            "rho": [0.1, 0.01],
            "max_interventions": 2,
        },
        "search": {"trials": trials},
        "reuse": {"memory_gib": 0.25},
        "cluster": {"max_concurrent": 1},  # two would each read all weights again, from one disk
        "factors": str(out / "factors"),
    }


@dataclass
class Taken:
    """What the processes of a step took, by kind of process: bytes at most, processor seconds."""

    own_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    processor_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    together_bytes: int = 0
    free_bytes: int = 2**62
    disk_read_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "own_bytes": dict(self.own_bytes),
            "processor_s": {name: round(spent, 1) for name, spent in self.processor_s.items()},
            "together_bytes": self.together_bytes,
            "least_available_bytes": self.free_bytes,
            "disk_read_bytes": self.disk_read_bytes,
        }


class Watch:
    """Samples every process that has `mark` in its environment."""

    def __init__(self, mark: str) -> None:
        self.taken = Taken()
        self._mark = f"{MARK}={mark}".encode()
        self._known: dict[int, str] = {}
        self._foreign: set[int] = set()
        self._spent: dict[int, tuple[str, float]] = {}
        self._read: dict[int, int] = {}

    def look(self) -> None:
        """One sample of all of them."""
        together = 0
        for pid in psutil.pids():
            if pid in self._foreign:
                continue
            try:
                if pid not in self._known and not self._is_ours(pid):
                    continue
                together += self._sample(pid)
            except (OSError, psutil.Error, IndexError, ValueError):  # it has ended
                self._known.pop(pid, None)
        taken = self.taken
        taken.together_bytes = max(taken.together_bytes, together)
        taken.free_bytes = min(taken.free_bytes, psutil.virtual_memory().available)
        taken.disk_read_bytes = sum(self._read.values())
        taken.processor_s = defaultdict(float)
        for kind, spent in self._spent.values():
            taken.processor_s[kind] += spent

    def _is_ours(self, pid: int) -> bool:
        if self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            self._known[pid] = ""
            return True
        # A child may still be a copy of its parent, with another environment a moment later.
        if time.time() - psutil.Process(pid).create_time() > 2:
            self._foreign.add(pid)
        return False

    def _sample(self, pid: int) -> int:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty once it has ended
        kind = self._known[pid] = kind_of(command) if command else self._known[pid]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        own = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon")), 0)
        self.taken.own_bytes[kind] = max(self.taken.own_bytes[kind], own)
        spent = psutil.Process(pid).cpu_times()
        self._spent[pid] = (kind, spent.user + spent.system)
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        self._read[pid] = int(next(x.split()[1] for x in lines if x.startswith("read_bytes")))
        return own

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample in a thread."""
        done = threading.Event()

        def go_on() -> None:
            while not done.wait(SAMPLE_S):
                self.look()

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def kind_of(command: bytes) -> str:
    """What a process is, by its command line."""
    text = command.replace(b"\0", b" ").decode(errors="replace")
    for part, kind in (
        ("StudyWorker", "worker"),
        ("Trainable.", "worker"),
        ("factor_matrices", "decomposition"),
        ("ray::", "idle worker of Ray"),
        ("default_worker", "idle worker of Ray"),
        ("import cluster.worker", "timing imports"),
        ("laser_search", "program"),
        ("spawn_main", "fresh process of the program"),
    ):
        if part in text:
            return kind
    return "Ray" if "/ray/" in text else "other"


def ran(command: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What a command prints, and what it took. Raises CalledProcessError."""
    mark = uuid.uuid4().hex
    watch = Watch(mark)
    started = time.perf_counter()
    with watch.running():
        done = subprocess.run(
            [*PROGRAM, *command],
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
    return done.stdout, {"wall_s": round(time.perf_counter() - started, 1)} | watch.taken.to_json()


Run = Callable[[Sequence[str]], tuple[str, dict[str, Any]]]


class Bench:
    """The steps in order, in `out`; each adds its entry to results.json."""

    def __init__(self, out: Path, tiny: bool, run: Run = ran) -> None:
        self.out, self.run = out, run
        self.shape, self.trials = (TINY, 3) if tiny else (LLAMA_2_7B, 10)
        self.results: dict[str, Any] = {}
        self._path = out / "results.json"
        if self._path.exists():
            self.results = json.loads(self._path.read_text())

    def steps(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name."""
        return {
            "model": self.model,
            "plan": self.plan,
            "launch": self.launch,
            "export": self.export,
        }

    def measure(self) -> dict[str, Any]:
        """Do what is not done."""
        for name, step in self.steps().items():
            if name in self.results:
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            self.results[name] = step()
            write_text(self._path, json.dumps(self.results, indent=1))
        return self.results

    def model(self) -> dict[str, Any]:
        """Write the checkpoint, the questions and study.yaml."""
        started = time.perf_counter()
        write_model(self.out / "model", self.shape)
        write_questions(self.out / "questions.jsonl", self.shape.words)
        (self.out / "study.yaml").write_text(
            yaml.safe_dump(settings(self.out, self.shape, self.trials))
        )
        source = ModelSource(str(self.out / "model"))
        size = sum(parameter.nbytes for parameter in source.skeleton().parameters())
        return {"bytes": size, "wall_s": round(time.perf_counter() - started, 1)}

    def plan(self) -> dict[str, Any]:
        """What `launch --plan` says, and what saying it took."""
        text, taken = self.run(["launch", str(self.out / "study.yaml"), "--plan", "--json"])
        return {"said": json.loads(text), "taken": taken}

    def launch(self) -> dict[str, Any]:
        """To the verdict."""
        study = self.out / "study"
        command = ["launch", str(self.out / "study.yaml"), "--out", str(study)]
        resumed = (study / "study.json").exists()
        _, taken = self.run(["resume", str(study)] if resumed else command)
        facts, _ = self.run(["status", str(study), "--json"])
        return {"taken": taken, "resumed": resumed, "status": json.loads(facts)}

    def export(self) -> dict[str, Any]:
        """The winner as a patch, verified."""
        command = ["export", str(self.out / "study"), "--out", str(self.out / "patch")]
        _, taken = self.run([*command, "--format", "patch", "--anyway", "--overwrite"])
        size = sum(path.stat().st_size for path in (self.out / "patch").rglob("*"))
        return {"taken": taken, "patch_bytes": size}


GIB = 2**30


def table(results: dict[str, Any]) -> str:
    """Markdown: memory and seconds, as the plan said and as they were."""
    said, launched = results["plan"]["said"], results["launch"]["taken"]
    own = launched["own_bytes"]
    rows = [
        ("own memory of a process that decomposes, GiB", said["svd_bytes"] / GIB, "decomposition"),
        ("own memory of a worker, GiB", said["worker_bytes"] / GIB, "worker"),
        ("own memory of the driver, GiB", None, "program"),
    ]
    lines = ["| | said | taken |", "|---|---|---|"]
    lines += [_row(what, stated, own.get(kind, 0) / GIB) for what, stated, kind in rows]
    files, free = said["mapped_bytes"] / GIB, launched["least_available_bytes"] / GIB
    lines += [
        _row("all processes together, GiB", None, launched["together_bytes"] / GIB),
        _row("memory available, least, GiB", None, free),
        _row("files of weights, GiB; read from disk", files, launched["disk_read_bytes"] / GIB),
    ]
    spent = results["launch"]["status"]["wall_s"]
    phases = dict.fromkeys([*said["phases_s"], *spent])
    lines += [_row(f"{p}, s", said["phases_s"].get(p), spent.get(p)) for p in phases]
    lines.append(_row("launch in all, s", said["total_s"], launched["wall_s"]))
    for name in ("plan", "launch", "export"):
        processor = sum(results[name]["taken"]["processor_s"].values())
        lines.append(_row(f"{name}: processor time, s", None, processor))
    return "\n".join(lines)


def _row(what: str, said: float | None, taken: float | None) -> str:
    cells = ["" if value is None else f"{value:.3g}" for value in (said, taken)]
    return f"| {what} | {' | '.join(cells)} |"


def main() -> None:
    """Measure what is not measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("seven"))
    parser.add_argument("--tiny", action="store_true", help="a small model: a look at the steps")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    print(table(Bench(asked.out.resolve(), asked.tiny).measure()))


if __name__ == "__main__":
    main()
