"""How far `launch --plan` is from what a launch takes, on three small studies on this machine.

    python benchmarks/plan.py --out DIR [--trials 60] [--without-ray]

The demo's model with its own strategy; a random Llama of 8 layers, every single cut once; a random
BERT classifier, random compositions. Prints, for each, the seconds that were said and those that
were taken, by phase and in all, and exits with 1 if a total is off by more than a quarter. With
`--without-ray` one process evaluates with one thread, and the phases from the baseline on are
compared in seconds of processor time, so that a busy machine does no harm: what one timed batch
says of the questions, without the start and the messages of Ray.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

import search.demo
from cluster import driver
from cluster.precompute import factor_matrices
from cluster.view import StudyView
from search.config import read_config
from search.forecast import OVERHEAD_S, Workers, foresee
from search.loop import run_study
from search.phases import SILENT
from search.plan import make_plan
from search.study.study_record import StudyRecord
from search.study.wall_time import WallTime

DEMO = Path(search.demo.__file__).parent
PROGRAM = [sys.executable, "-m", "laser_search"]
ALLOWED = 0.25


def random_llama(folder: Path, layers: int = 8, width: int = 128) -> None:
    """A causal model that answers at random, with the demo's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def random_bert(folder: Path, layers: int = 4, width: int = 128) -> None:
    """A classifier of two labels, with the demo's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id or 0,
        num_labels=2,
        id2label={0: "frequent", 1: "rare"},
        label2id={"frequent": 0, "rare": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def studies(root: Path, trials: int) -> dict[str, dict[str, Any]]:
    """Three configurations by name; their models and data lie in `root`."""
    rows = [json.loads(line) for line in (DEMO / "questions.jsonl").read_text().splitlines()]
    labels = [
        {"text": row["prompt"], "label": "frequent" if row["frequency"] == "frequent" else "rare"}
        for row in rows
    ]
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    random_llama(root / "llama")
    random_bert(root / "bert")
    split = {"validation": 0.4}
    return {
        "demo": {
            "model": {"path": str(DEMO / "model")},
            "task": {"name": "jsonl", "data": str(DEMO / "questions.jsonl")},
            "split": split,
            "search": {"trials": trials},
        },
        "llama": {
            "model": {"path": str(root / "llama")},
            "task": {"name": "jsonl", "data": str(DEMO / "questions.jsonl")},
            "split": split,
            "space": {"rho": [0.5, 0.1, 0.01], "max_interventions": 1},
            "search": {"trials": trials, "strategy": "grid"},
        },
        "bert": {
            "model": {"path": str(root / "bert")},
            "task": {"name": "jsonl", "data": str(root / "labels.jsonl")},
            "split": split,
            "search": {"trials": trials, "strategy": "random"},
        },
    }


def measure(name: str, config: dict[str, Any], root: Path) -> float:
    """Plan and launch one study; prints both and returns how far the total is off, as a share."""
    folder = root / f"{name}-study"
    folder.mkdir()
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**config, "factors": str(folder / "factors")}))
    plan = [*PROGRAM, "launch", str(path), "--plan", "--json", "-q"]
    said = json.loads(subprocess.run(plan, check=True, capture_output=True, text=True).stdout)
    study = folder / "study"
    started = time.perf_counter()
    subprocess.run([*PROGRAM, "launch", str(path), "--out", str(study), "-q"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    took = time.perf_counter() - started
    status = [*PROGRAM, "status", str(study), "--json"]
    facts = json.loads(subprocess.run(status, check=True, capture_output=True, text=True).stdout)
    off = said["total_s"] / took - 1
    print(f"{name}: said {said['total_s']:.1f} s, took {took:.1f} s ({off:+.0%})")
    print(f"  said {json.dumps({k: round(v, 2) for k, v in said['phases_s'].items()})}")
    print(f"  took {json.dumps({k: round(v, 2) for k, v in facts['wall_s'].items()})}")
    print(f"  a trial {said['trial_s']:.3f} s, of {said['trials']}; {facts['finished']} finished")
    return float(off)


def measure_here(name: str, config: dict[str, Any], root: Path) -> float:
    """The same by one process, from the baseline on."""
    folder = root / f"{name}-study"
    folder.mkdir()
    data = {**config, "factors": str(folder / "factors"), "cluster": {"max_concurrent": 1}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(data))
    plan = make_plan(read_config(path))
    view = StudyView(SILENT)
    torch.set_num_threads(1)
    with patch("time.perf_counter", time.process_time):
        said = foresee(plan, Workers(1, 1, 1, "cpu", 0.0))
    with (
        patch("time.perf_counter", time.process_time),
        patch("cluster.driver.WallTime", partial(WallTime, time.process_time)),
        patch("cluster.driver.ray_session", lambda *_: nullcontext()),
        patch("cluster.driver.living_nodes", lambda: [{"CPU": 1}]),
        patch("cluster.precompute.precompute", _factors),
        patch("cluster.driver._search", _search),
    ):
        driver.launch(read_config(path), folder / "study", view, None, path)
    took = StudyRecord.read(folder / "study").summary.wall_s
    parts = ("baseline", "screen", "trials", "test", "general text")
    expected = sum(said.phases_s[part] for part in parts) - OVERHEAD_S * said.outline.trials
    spent = sum(took.get(part, 0.0) for part in parts)
    off = expected / spent - 1
    print(f"{name}: said {expected:.1f} s, took {spent:.1f} s ({off:+.0%})")
    print(f"  said {json.dumps({k: round(v, 2) for k, v in said.phases_s.items()})}")
    print(f"  took {json.dumps({k: round(v, 2) for k, v in took.items()})}", flush=True)
    return float(off)


def _factors(
    source: Any,
    matrices: Any,
    root: Any,
    shares: Any,
    storing: Any,
    on_built: Any,
    check: Any,
    here: Any,
) -> dict[str, str]:
    batch = factor_matrices(source, matrices, str(root), shares, storing, wait=True)
    for built in batch.ready:
        on_built(built)
    return {built.address: built.key for built in batch.ready}


def _search(plan: Any, study: Any, shares: Any, is_cut: Any) -> None:
    evaluator, _ = driver._blueprint(plan, study, shares).build()
    run_study(study, evaluator)


def main() -> int:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--without-ray", action="store_true")
    given = parser.parse_args()
    by = measure_here if given.without_ray else measure
    given.out.mkdir(parents=True)
    found = [
        by(name, config, given.out) for name, config in studies(given.out, given.trials).items()
    ]
    return int(max(map(abs, found)) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
