"""Every form of export of four small models, reloaded in a fresh process; sizes and speed.

    python benchmarks/export_formats.py
    python benchmarks/export_formats.py --speed

The models are random: what is measured is whether an export answers as the trial did, and what
it costs. *Off* is how far an export's log-probabilities are from those of the trial's own weights
in float64, beside what plain float32, one question at a time, is off (tests/exactness.py says how
much of that is allowed). With `--speed`: parameters and forward time of models whose every block
matrix is two thin layers, against the dense ones, in turns in one process.
"""

from __future__ import annotations

import argparse
import copy
import json
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from one_study import evaluate_all
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast

from search.cuts.rules import fraction_of
from search.export.exported_trial import choose_trial
from search.export.factored import replace_layers
from search.export.formats import FORMATS
from search.export.run import Wish, export
from search.export.scoring import Scorer
from search.export.verify import form_of
from search.model import own_device
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.errors import InputError

Rounding = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "exactness.py"))["Rounding"]
WORDS = 4000
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": (
        "AutoModelForCausalLM",
        "llama",
        dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8),
    ),
    "GPT-2": ("AutoModelForCausalLM", "gpt2", dict(n_embd=512, n_layer=4, n_head=8)),
    "BERT": (
        "AutoModelForMaskedLM",
        "bert",
        dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8),
    ),
    "T5": (
        "AutoModelForSeq2SeqLM",
        "t5",
        dict(
            d_model=512,
            d_ff=2048,
            d_kv=64,
            num_layers=2,
            num_heads=8,
            decoder_start_token_id=0,
            feed_forward_proj="relu",
        ),
    ),
}
CUTS = {
    "Llama": ("2.fc_in=0.1 3.fc_out=0.05 3.q_proj=0.2", "3.q_proj=0.8 3.fc_out=0.9"),
    "GPT-2": ("2.fc_in=0.1 3.fc_out=0.05 3.q_proj=0.2", "3.q_proj=0.8 3.fc_out=0.9"),
    "BERT": ("2.fc_in=0.1 3.fc_out=0.05 3.q_proj=0.2", "3.q_proj=0.8 3.fc_out=0.9"),
    "T5": (
        "encoder.1.fc_in=0.1 decoder.1.fc_out=0.05 decoder.1.cross.q_proj=0.2",
        "encoder.1.fc_in=0.8 decoder.1.q_proj=0.9",
    ),
}


def build(name: str) -> Any:
    auto, kind, sizes = SHAPES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=WORDS, pad_token_id=0, **sizes)
    config.bos_token_id, config.eos_token_id = 1, 2
    model = getattr(transformers, auto).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)  # so that answers differ
    return model


def prepare(name: str, folder: Path) -> dict[str, Any]:
    """Write model, tokenizer and questions; return study.yaml."""
    model = build(name)
    if model.config.is_encoder_decoder:
        model.generation_config.decoder_start_token_id = 0
    model.save_pretrained(folder / "base")
    words = {w: i for i, w in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[MASK]"])}
    words |= {f"w{i}": len(words) + i for i in range(WORDS - 5)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(pad_token="[PAD]", eos_token="[EOS]", mask_token="[MASK]", unk_token="[UNK]")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "base")
    rows = []
    for i in range(400):
        prompt = " ".join(f"w{(i * 37 + j * 101) % 3900}" for j in range(3 + i % 9))
        choices = [f"w{(i * 13 + k * 911) % 3900}" for k in range(4)]
        rows.append({"prompt": prompt, "answer": choices[0], "choices": choices, "group": str(i)})
    (folder / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {
        "model": {"path": str(folder / "base")},
        "task": {"name": "jsonl", "data": str(folder / "questions.jsonl")},
        "split": {"validation": 0.5},
        "factors": str(folder / "factors"),
    }


def formats(names: list[str]) -> int:
    """Export every form of every model and print what its verification said."""
    failed = 0
    print(
        "| model | form | examples equal | last bit equal | worst | off, nats: plain, export, "
        "allowed | files, MB | ms dense/thin |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            record = evaluate_all(root / "study", prepare(name, root), list(CUTS[name]))
            for form in FORMATS:
                trial = choose_trial(record, 1 if form == "lora" else 0)
                out = root / form
                try:
                    found = export(record, trial, Wish(out, form))
                except InputError as error:
                    print(f"| {name} | {form} | refused: {error} | | | | | |")
                    failed += 1
                    continue
                if found is None:
                    raise SystemExit("no verdict")
                far = distance(record, trial, out, form)
                failed += not (found.agrees and far.holds)
                size = sum(p.stat().st_size for p in out.iterdir()) / 1e6
                ms = "/".join(f"{1e3 * s:.1f}" for s in sorted(found.speed.values(), reverse=True))
                print(
                    f"| {name} | {form} | {found.examples - found.different} of {found.examples} "
                    f"| {found.exact} | {found.worst:.1e} "
                    f"| {far.own:.1e}, {far.off:.1e}, {far.allowed:.1e} | {size:.3f} | {ms} |",
                    flush=True,
                )
    return failed


def distance(record: StudyRecord, trial: TrialRecord, folder: Path, form: str) -> Any:
    """How far an export is from the trial's own weights in float64, and plain float32 from them."""
    scorer = Scorer(record, trial.effect)
    model = scorer.plan.source.load()
    cache = FactorCache(record.config.factors)
    Editor(model, find_matrices(model), cache).apply(trial.composition)
    with tempfile.TemporaryDirectory() as scratch:
        loaded = form_of(form).load(folder, scorer.plan.source, own_device(), Path(scratch))
        found = scorer.score(loaded)
    exact = scorer.score(copy.deepcopy(model).double())
    plain = scorer.score(model, tokens_per_batch=1)
    figures = ([o.log_probability for o in one.outcomes] for one in (found, plain, exact))
    return Rounding().distance(*figures)


def thin(model: Any, rho: float) -> None:
    """Replace every whole linear layer of the blocks by two of this fraction of its rank."""
    ranks = {
        m.module: fraction_of(rho, m.max_rank)
        for m in find_matrices(model)
        if not m.view.width and type(model.get_submodule(m.module)).__name__ in ("Linear", "Conv1D")
    }
    replace_layers(model, ranks)
    with torch.no_grad():
        for name in ranks:
            for parameter in model.get_submodule(name).parameters():
                nn.init.normal_(parameter, std=0.02)


def speed(names: list[str]) -> None:
    """Parameters and forward time by rho; the ratio at which thin layers stop paying."""
    print("| model | rho | parameters, of dense | forward, of dense: 512 tokens | 16 tokens |")
    print("|---|---|---|---|---|")
    for name in names:
        for rho in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
            dense, other = build(name), build(name)
            thin(other, rho)
            before, after = (sum(p.numel() for p in m.parameters()) for m in (dense, other))
            ratios = [ratio(dense, other, rows, tokens) for rows, tokens in ((8, 64), (1, 16))]
            print(
                f"| {name} | {rho} | {after / before:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
                flush=True,
            )


def ratio(dense: Any, other: Any, rows: int, tokens: int, repeats: int = 9) -> float:
    """Median over `repeats` of thin time / dense time, measured in turns."""
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % WORDS
    inputs = {"input_ids": ids}
    if dense.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    found = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            seconds = []
            for model in (dense, other):
                started = time.perf_counter()
                model.base_model(**inputs)  # the blocks, without the head over the vocabulary
                seconds.append(time.perf_counter() - started)
            found.append(seconds[1] / seconds[0])
    return statistics.median(found[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.speed:
        speed(asked.models)
        return 0
    return formats(asked.models)


if __name__ == "__main__":
    sys.exit(main())
