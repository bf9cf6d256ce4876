"""Runs the commands that README.md and docs/*.md print, as they are printed, without a network.

    python benchmarks/docs_commands.py --out DIR [--page NAME ... [--finished DIR]] [--list]

The shell blocks of each page run in order in a folder of their own, then the commands in its code
spans. RULES say of each command what stands in for what cannot be had here (a hub's model, a shared
disk, a placeholder), or why it does not run. A command without a rule ends the script with 1, as
does one that exits with another code than 0. Benchmarks take minutes to hours: of those `--help`
runs, so that all they import is there. DIR must not exist. Other pages look at the studies of
README.md, which runs first, unless `--finished` is the folder README of an earlier run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "search" / "demo"
DATED = {"log.md", "svd.template.md"}
"""Records of what was run on a day, which later changes do not reach; and what makes svd.md."""

SHELL = {"cat", "for", "kill", "less", "done", "do"}
OTHERS = {"kubectl", "sbatch", "ray", "ssh", "pip", ".ci/quick", ".ci/run", "hf"}
"""Programs that are not ours."""

LAUNCH = {"README.md", "budget.md", "cluster.md"}
"""Pages that launch my-study themselves; the others look at that of README.md."""

NEED_NOTHING = {"demo", "formats", "init", "kinds", "presets", "tasks"}
"""Commands whose name alone is a call."""

LIMIT_S = 900.0


@dataclass(frozen=True)
class Rule:
    """Commands that begin with `start`: what is printed and what stands in for it, in turns.

    With a `reason` they do not run here.
    """

    start: str
    swaps: tuple[str, ...] = ()
    reason: str = ""

    def as_run(self, command: str) -> str:
        """The command with what stands in."""
        for printed, meant in zip(self.swaps[::2], self.swaps[1::2], strict=True):
            command = command.replace(printed, meant)
        return command


def run(start: str, *swaps: str) -> Rule:
    return Rule(start, swaps)


def left(reason: str, *starts: str) -> list[Rule]:
    return [Rule(start, (), reason) for start in starts]


BENCHMARK = "a benchmark: minutes to hours, docs/log.md has what it found"
INSTALLS = "installs packages"
SUITE = "the test suite"
KUBERNETES = "needs a Kubernetes cluster"
MACHINES = "needs machines to start"
SOURCES = "tests/evaluation/test_sources.py runs it with small models"

GPT2 = ("openai-community/gpt2", "./deep")
DEEP = ("MODEL", "./deep")
FINISHED = ("DIR", "my-study")

RULES: dict[str, list[Rule]] = {
    "*": [
        *left(BENCHMARK, "python benchmarks/"),
        *left(INSTALLS, "pip install"),
        *left(SUITE, ".ci/", ".venv/bin/python -m pytest"),
    ],
    "README.md": [
        *left(SUITE, "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]'"),
        # .ci/run installs with this command; here the environment is there.
        run(
            "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/laser-search demo",
            "python3 -m venv .venv && .venv/bin/pip install -q . && ",
            "",
        ),
        # The four questions show the format; a study needs some hundreds.
        run("cat > questions.jsonl", "> questions.jsonl", "> four.jsonl"),
        run("cat > study.yaml", "openai-community/gpt2", "./demo-model"),
        run(".venv/bin/laser-search launch study.yaml"),
        *map(run, (f".venv/bin/laser-search {x} my-study" for x in ("status", "watch", "resume"))),
        *map(run, (f".venv/bin/laser-search {x} my-study" for x in ("report", "export"))),
        run(
            ".venv/bin/laser-search evaluate",
            *GPT2,
            "--task counterfact",
            "--task counterfact --data counterfact.json",
        ),
        run(".venv/bin/laser-search cut", *GPT2),
        run("laser-search report laser-demo"),
        *map(run, ("laser-search presets", "laser-search tasks", "laser-search kinds")),
        *map(run, ("laser-search formats", "laser-search --help")),
        run("laser-search matrices MODEL", *DEEP),
        run("laser-search init", "laser-search init", "laser-search init made.yaml < answers.txt"),
        *left("edits the files of the user's own shell", "laser-search --install-completion"),
    ],
    "budget.md": [
        # study.yaml with the block that stands above the command on that page.
        run(
            "laser-search launch study.yaml --out my-study",
            "study.yaml",
            "study.yaml --set space='{matrices: [all], budget: {kept: 0.6}}'",
        ),
        run("laser-search export my-study --out smaller --format factored"),
    ],
    "cluster.md": [
        *left(
            "tests/cluster/test_clusters.py runs it, which starts Ray clusters",
            "laser-search launch study.yaml --out /shared/my-study --address auto",
            "laser-search launch study.yaml --out my-study --address ray://",
        ),
        run("laser-search launch study.yaml --out /shared/me/my-study --on slurm", "/shared", "."),
        run("laser-search launch study.yaml --on"),
        run("laser-search launch study.yaml --out my-study"),
        *map(run, (f"laser-search {x} my-study" for x in ("status", "stop", "resume"))),
        run("less study.slurm.sh", "less", "cat"),
        # Follows until Ctrl-C.
        run(
            "laser-search logs /shared/me/my-study",
            "laser-search logs /shared/me/",
            "timeout --preserve-status -s INT 10 laser-search logs ",
            "node17",
            "$(worker)",
        ),
        run("laser-search status /shared/me/my-study", "/shared/me/", ""),
        run("laser-search stop /shared/me/my-study", "/shared/me/", ""),
        *left("needs Slurm", "sbatch"),
        *left(KUBERNETES, "kubectl"),
        *left(MACHINES, "ray "),
        *left("needs a host to reach", "ssh -L"),
    ],
    "configuration.md": [
        run("laser-search launch study.yaml --set", "launch", "launch --out with-set"),
        run("laser-search launch study.yaml --plan"),
        run("laser-search resume my-study --trials +100"),
        run("laser-search schema > study.schema.json"),
        run("laser-search tasks"),
        run("laser-search export my-study --out my-model --trial N", "--trial N", "--trial 1"),
    ],
    "demo.md": [
        *left("trains the demo's model, ten minutes", "python -m search.demo.train"),
        run("laser-search demo", "demo", "demo --out again"),
    ],
    "export.md": [
        run(
            "laser-search export DIR",
            *FINISHED,
            "PATH [--format F] [--trial N] [--push REPO]",
            "patched --format patch",
        ),
        run(
            "laser-search apply PATCH",
            "PATCH",
            "patched",
            "BASE",
            "./demo-model",
            "PATH",
            "applied",
        ),
        run(
            "laser-search cut MODEL",
            *DEEP,
            "[--intervention ...] --out PATH [--format F]",
            "--out cut --format dense",
        ),
        run(
            "laser-search heal DIR",
            *FINISHED,
            "FILE",
            "train.jsonl",
            "--steps N",
            "--steps 2",
            "PATH [--method lora|factors] [--apart]",
            "healed --method factors",
        ),
        run(
            "laser-search heal MODEL",
            *DEEP,
            "--task T --data FILE --train FILE ...",
            "--task jsonl --data few.jsonl --train train.jsonl --steps 2 --out healed-deep",
        ),
        *left("needs an account of the hub", "hf auth login"),
    ],
    "extending.md": [run("laser-search tasks")],
    "factors.md": [
        run("laser-search matrices MODEL", *DEEP, "DIR", "cache"),
        run("laser-search decompose MODEL", *DEEP, "DIR", "cache"),
        run("laser-search factors", "DIR", "cache"),
    ],
    "failures.md": [
        run("laser-search resume DIR", *FINISHED),
        run("laser-search status DIR", *FINISHED),
    ],
    "families.md": [run("laser-search matrices MODEL", *DEEP)],
    "looking.md": [
        run("laser-search watch DIR", *FINISHED),
        run("laser-search report DIR", *FINISHED),
        run("laser-search compare DIR", *FINISHED, "COLUMN", "frequency"),
        # A server: ended by a signal as by a user.
        run(
            "laser-search dashboard DIR",
            *FINISHED,
            "laser-search dashboard",
            "timeout --preserve-status -s INT 20 laser-search dashboard --port 18765",
        ),
        *left("needs TensorBoard; tests/report/test_track.py runs it", "laser-search track DIR"),
        run("laser-search spectra MODEL", "MODEL", "./demo-model"),
    ],
    "outcomes.md": [run("laser-search compare laser-demo --by frequency")],
    "paper.md": [
        run("laser-search presets"),
        run("laser-search init --preset gptj-fever", "init", "init made.yaml"),
        run(
            "laser-search evaluate --preset gptj-fever",
            "gptj-fever",
            "gptj-fever ./deep --data fever.jsonl",
        ),
        run(
            "laser-search cut --preset gptj-fever",
            "gptj-fever",
            "gptj-fever ./deep",
            "DIR",
            "cut",
        ),
    ],
    "sources.md": [
        *left(SOURCES, "python benchmarks/posts/", "python benchmarks/flan_t5_counts.py"),
        *left(SOURCES, "laser-search evaluate", "laser-search cut", "laser-search spectra"),
        run("laser-search presets"),
    ],
    "svd.md": [run("laser-search spectra MODEL", "MODEL", "./demo-model")],
    "testing.md": [
        *left("loads the machine until it is ended", "for n in 1 2"),
        *left(SUITE, "ATEN_CPU_CAPABILITY"),
    ],
    "whitened.md": [
        run("laser-search evaluate MODEL", *DEEP),
        run("laser-search decompose MODEL", *DEEP, "DIR", "cache"),
        run("laser-search factors gc", "gc", "gc cache"),
        run("laser-search cut MODEL", *DEEP, "DIR", "cut"),
    ],
}


def pages() -> list[Path]:
    """README.md and the pages of docs, but for records of a day."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in found if page.is_file() and page.name not in DATED]


def blocks(page: Path) -> tuple[list[str], list[str], list[str]]:
    """(sh blocks, indented blocks, spans of code) of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^(?:    .*\n(?:\n+(?=    ))?)+", text, flags=re.MULTILINE)
    indented = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return fenced, indented, spans


def commands_of(block: str) -> list[str]:
    """The commands of a shell block; continued lines are one, with the body of a here-document."""
    found: list[str] = []
    end = ""
    for line in block.replace("\\\n", " ").splitlines():
        if end:
            found[-1] += f"\n{line}"
            end = "" if line == end else end
        elif line.strip():
            found.append(line.strip())
            document = re.search(r"<<'(\w+)'", line)
            end = document[1] if document else ""
    return found


def without_settings(words: list[str]) -> list[str]:
    """`words` without the variables that are set for the command."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words


def begins_with_program(line: str) -> bool:
    """Whether a line is a command, as far as its first word says."""
    words = without_settings(line.split())
    name = words[0].removeprefix(".venv/bin/") if words else ""
    return name in {"laser-search", "python", "python3"} | SHELL | OTHERS


def is_shell(block: str) -> bool:
    """Whether all commands of an indented block begin with a program."""
    return all(begins_with_program(one) for one in commands_of(block))


def printed(page: Path) -> Iterator[str]:
    """The commands of a page: of its blocks in order, then of its code spans, each once."""
    fenced, indented, spans = blocks(page)
    for block in [*fenced, *filter(is_shell, indented)]:
        yield from commands_of(block)
    before = ""
    for span in dict.fromkeys(spans):
        words = span.split()
        if words[0] == "…" and before:
            folder = before.rpartition("/")[0]
            script = f"{folder}/{words[1]}" if words[1].endswith(".py") else f"{before} {words[1]}"
            words = ["python", script, *words[2:]]
        if words[0] == "python" and words[1].endswith(".py"):
            before = words[1]
        if begins_with_program(" ".join(words)) and not is_mention(words):
            yield " ".join(words)


def is_mention(words: list[str]) -> bool:
    """Whether a span names a program or a command, without what its call needs."""
    if len(words) == 1:
        return not words[0].startswith(".ci/")
    if words[:2] == ["python", "-m"]:
        return len(words) == 3
    alone = words[0] == "laser-search" and len(words) == 2
    return alone and not (words[1].startswith("-") or words[1] in NEED_NOTHING)


def rule_of(page: Path, command: str) -> Rule | None:
    """The page's own rule for a command, else the one for all pages."""
    rules = [*RULES.get(page.name, ()), *RULES["*"]]
    return next((rule for rule in rules if command.startswith(rule.start)), None)


def prepare(root: Path) -> None:
    """What stands in for models and data that are not here."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    root.mkdir()
    alphabet = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = {text: number for number, text in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_positions=512, n_embd=32, n_layer=28, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(root / "deep")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="</s>")
    fast.save_pretrained(root / "deep")
    shutil.copytree(DEMO / "model", root / "demo-model")
    lines = (DEMO / "questions.jsonl").read_text().splitlines(keepends=True)
    (root / "questions.jsonl").write_text("".join(lines[:600]))
    (root / "few.jsonl").write_text("".join(lines[600:640]))
    (root / "train.jsonl").write_text("".join(lines[700:740]))
    texts = [json.loads(line)["prompt"] for line in lines]
    (root / "texts.txt").write_text("\n".join(texts))
    rows = [f"{text}\t{number % 2}" for number, text in enumerate(texts[:40])]
    (root / "dev.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
    claims = [
        {"id": n, "claim": text, "label": ("SUPPORTS", "REFUTES")[n % 2]}
        for n, text in enumerate(texts[:40])
    ]
    (root / "fever.jsonl").write_text("\n".join(map(json.dumps, claims)))
    facts = [
        {
            "case_id": n,
            "requested_rewrite": {
                "prompt": "The capital of {} is",
                "subject": f"land {n}",
                "target_true": {"str": "Paris" if n % 2 else "Rome"},
                "target_new": {"str": "Bern"},
            },
            "paraphrase_prompts": [f"Land {n} is governed from"],
        }
        for n in range(20)
    ]
    (root / "counterfact.json").write_text(json.dumps(facts))
    (root / "answers.txt").write_text("./demo-model\njsonl\n./questions.jsonl\n\n\n\n")
    (root / "study.yaml").write_text(
        "model: {path: ./demo-model}\ntask: {name: jsonl, data: ./questions.jsonl}\n"
        "search: {trials: 12}\nfactors: ./factors\n"
    )


def lay_out(given: Path, folder: Path, page: str, finished: Path) -> None:
    """The folder in which a page's commands run; `finished` is that of README.md."""
    shutil.copytree(given, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("benchmarks", "search"):
        (folder / name).symlink_to(ROOT / name)
    if page not in LAUNCH:
        for name in ("my-study", "laser-demo"):
            shutil.copytree(finished / name, folder / name)


def environment(home: Path) -> dict[str, str]:
    """Programs of the environment that runs this come first; the home is a folder of the run."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HOME": str(home), "PAGER": "cat"}


def execute(command: str, folder: Path, log: Path) -> tuple[int, float]:
    """Exit code and seconds of a command; all that it prints is appended to `log`."""
    started = time.perf_counter()
    worker = "worker() { basename -s .jsonl my-study/logs/worker-*.jsonl | head -1 | cut -c8-; }\n"
    with log.open("a") as stream:
        stream.write(f"\n$ {command}\n")
        stream.flush()
        code = subprocess.run(
            ["timeout", str(LIMIT_S), "bash", "-ec", worker + command],
            check=False,
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        ).returncode
    return code, time.perf_counter() - started


def run_page(page: Path, folder: Path, log: Path) -> tuple[int, int, list[str]]:
    """Run a page's commands: (how many ran, how many are left out, what failed)."""
    ran = out = 0
    failed = []
    helped: set[str] = set()
    for command in printed(page):
        rule = rule_of(page, command)
        if rule is None:
            failed.append(f"{page.name}: no rule for {command!r}")
            continue
        what = command.partition("\n")[0]
        if rule.reason:
            out += 1
            print(f"  left out ({rule.reason}): {what}", flush=True)
            script = re.match(r"python (benchmarks/\S+\.py)", command)
            if script is None or script[1] in helped:
                continue
            helped.add(script[1])
            code, took = execute(f"python {script[1]} --help", folder, log)
        else:
            ran += 1
            code, took = execute(rule.as_run(command), folder, log)
            print(f"  {'ran' if code == 0 else 'FAILED'} in {took:.1f} s: {what}", flush=True)
        if code:
            failed.append(f"{page.name}: exit code {code}: {what}")
    return ran, out, failed


def main() -> int:
    """Run all pages, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", nargs="+", default=[])
    parser.add_argument("--finished", type=Path, default=None)
    parser.add_argument("--list", action="store_true", help="print the commands, run none")
    given = parser.parse_args()
    chosen = [page for page in pages() if not given.page or page.name in given.page]
    if given.list or given.out is None:
        for page in chosen:
            for command in printed(page):
                print(f"{page.name}: {command.partition(chr(10))[0]}")
        return 0
    out = given.out.resolve()
    out.mkdir(parents=True)
    prepare(out / "given")
    log = out / "log.txt"
    readme = ROOT / "README.md"
    finished = out / "README" if given.finished is None else given.finished.resolve()
    if readme not in chosen and given.finished is None:
        chosen.insert(0, readme)
    ran = left_out = 0
    failed: list[str] = []
    for page in chosen:
        print(page.name, flush=True)
        folder = out / page.stem
        lay_out(out / "given", folder, page.name, finished)
        one, other, wrong = run_page(page, folder, log)
        ran, left_out, failed = ran + one, left_out + other, failed + wrong
    print(f"{ran} commands ran, {left_out} are left out, {len(failed)} failed; output in {log}")
    print("\n".join(failed))
    return int(bool(failed))


if __name__ == "__main__":
    if importlib.util.find_spec("cluster") is None:
        sys.path.insert(0, str(ROOT))
    sys.exit(main())
