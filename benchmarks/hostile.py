"""Random damage to what a user gives the program: a sentence or a result, never a traceback.

    python benchmarks/hostile.py --rounds 200 --seed 0

Each round takes a sound model, study, data set, recipe and patch of its own making, spoils one file
(bytes cut, flipped or put in; a JSON value swapped for another kind; a key dropped or given twice)
and runs a command on it in this process. Prints the rounds by file and exit code, and every
traceback with the seed that repeats it; exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import yaml

VALUES = [
    None, True, -1, 0, 3, 10**30, 1e400, -1e-9, "", "2", "x", "../x", "\x00", "\ud83d", "\x1b[2J",
    [], {}, [1], {"a": 1}, [[]] * 3, "9" * 400, 2**63,
]  # fmt: skip


def build(folder: Path) -> None:
    """A sound model, its data, a study, a recipe and a patch."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from search.cuts.composition import Composition
    from search.export.base import Base
    from search.export.patch import write_patch, write_recipe
    from search.model import ModelSource
    from search.weights.factors import FactorCache

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<|end|>"],
                                  initial_alphabet=alphabet, show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(["Question 1 is Paris"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    torch.manual_seed(0)
    sizes = dict(n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(fast), **sizes))
    model.save_pretrained(folder / "model", max_shard_size="10KB")
    fast.save_pretrained(folder / "model")
    rows = [{"prompt": f"Question {i} is", "answer": str(i), "kind": i % 2} for i in range(10)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = Base(ModelSource(str(folder / "model")))
    placed = base.place(Composition.parse(["1.fc_in=0.5"]))
    cache = FactorCache(folder / "factors")
    for name, write in (("recipe", write_recipe), ("patch", write_patch)):
        (folder / name).mkdir()
        write(base, placed, cache, folder / name)


def study(folder: Path) -> None:
    data = {
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "task": {"name": "jsonl", "data": str(folder / "questions.jsonl")},
        "split": {"validation": 0.5, "seed": 0},
        "space": {
            "layers": "all",
            "matrices": ["fc_in"],
            "rho": [0.5, 0.1],
            "max_interventions": 2,
        },
        "search": {"strategy": "random", "trials": 2},
        "factors": str(folder / "factors"),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(data))


def paths_in(value: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The places of all values in JSON data."""
    found = [here] if here else []
    if not isinstance(value, dict | list):
        return found
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found += paths_in(inner, (*here, key))
    return found


def swap(value: object, chance: random.Random) -> object:
    """Data with one value replaced, dropped or moved."""
    places = paths_in(value)
    shallow = [place for place in places if len(place) <= 2]
    place = chance.choice(shallow if shallow and chance.random() < 0.7 else places)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if chance.random() < 0.15:
        del inner[place[-1]]
    else:
        inner[place[-1]] = chance.choice(VALUES)
    return value


def spoil_bytes(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    kind = chance.randrange(4)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + chance.randbytes(chance.randint(1, 8)) + data[place + 1 :]
    if kind == 2:
        return data[:place] + data[place : place + 40] * 3 + data[place:]
    return (
        data[:place] + chance.choice([b"\x00", b"\xff", b"[" * 100_000, b"9" * 5000]) + data[place:]
    )


def spoil_patch(path: Path, chance: random.Random) -> None:
    """Change the metadata of a patch, or its bytes."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    if chance.random() < 0.3:
        path.write_bytes(spoil_bytes(path.read_bytes(), chance))
        return
    tensors = load_file(path)
    with safe_open(path, framework="pt") as stream:
        facts = dict(stream.metadata())
    key = chance.choice(["origin", "rows", "format"])
    if key == "format" or chance.random() < 0.2:
        facts[key] = chance.choice(["", "x", "[]", "{", "[" * 100_000])
    else:
        facts[key] = json.dumps(swap(json.loads(facts[key]), chance))
    if chance.random() < 0.2:
        name = chance.choice(sorted(tensors))
        tensors[name] = tensors[name][:1].clone()
    save_file(tensors, path, facts)


def spoil(path: Path, chance: random.Random) -> None:
    if path.name == "patch.safetensors":
        spoil_patch(path, chance)
    elif path.suffix == ".safetensors" or chance.random() < 0.3:
        path.write_bytes(spoil_bytes(path.read_bytes(), chance))
    elif path.suffix == ".yaml":
        data = swap(yaml.safe_load(path.read_text()), chance)
        with contextlib.suppress(yaml.YAMLError):
            path.write_text(yaml.safe_dump(data).encode("utf-8", "replace").decode())
    elif path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        place = chance.randrange(len(lines))
        lines[place] = json.dumps(swap(json.loads(lines[place]), chance))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(swap(json.loads(path.read_text()), chance)))


TARGETS = {
    "study.yaml": "plan",
    "model/config.json": "plan evaluate matrices",
    "model/model.safetensors.index.json": "plan evaluate apply spectra",
    "model/tokenizer.json": "plan evaluate",
    "model/tokenizer_config.json": "plan evaluate",
    "model/generation_config.json": "evaluate",
    "model/SHARD": "plan evaluate spectra",
    "questions.jsonl": "plan evaluate",
    "recipe/recipe.json": "apply",
    "patch/patch.safetensors": "apply",
}


def words_of(kind: str, folder: Path, target: str) -> list[str]:
    """A command that reads what was spoilt. ``plan`` is launch up to the start of Ray."""
    model, out = str(folder / "model"), str(folder / "out")
    edit = str(folder / ("patch" if target.startswith("patch") else "recipe"))
    data = ["--task", "jsonl", "--data", str(folder / "questions.jsonl")]
    cut = ["--intervention", "1.fc_in=0.1", "--factors", str(folder / "factors")]
    return {
        "plan": ["launch", str(folder / "study.yaml"), "--out", out],
        "evaluate": ["evaluate", model, *data, *cut],
        "matrices": ["matrices", model],
        "spectra": ["spectra", model, "--out", out],
        "apply": ["apply", edit, "--model", model, "--out", out],
    }[kind]


def run(words: list[str]) -> tuple[int, str]:
    """Exit code and what it complained of, with the traceback if there was one."""
    from cluster import driver
    from cluster.cli import main
    from tasks.errors import InputError

    def no_ray(*_: object, **__: object) -> None:
        raise InputError("so far, so good")

    driver.ray_session = no_ray
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["laser-search", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            return 0, err.getvalue()
        except SystemExit as end:
            return int(end.code or 0), err.getvalue()
        except BaseException:
            return -1, traceback.format_exc()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="Print every sentence.")
    wish = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    counts: Counter[tuple[str, int]] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name) / "sound"
        sound.mkdir()
        build(sound)
        for number in range(wish.seed, wish.seed + wish.rounds):
            chance = random.Random(number)
            folder = Path(name) / str(number)
            shutil.copytree(sound, folder)
            study(folder)
            target = sorted(TARGETS)[number % len(TARGETS)]
            shards = sorted(folder.glob("model/*.safetensors"))
            path = chance.choice(shards) if target.endswith("SHARD") else folder / target
            spoil(path, chance)
            kind = chance.choice(TARGETS[target].split())
            code, said = run(words_of(kind, folder, target))
            counts[target, code] += 1
            if code == -1 or (code == 2 and "laser-search: " not in said):
                bad += 1
                print(f"seed {number}, {target}, {kind}:\n{said}")
            elif wish.show:
                print(f"seed {number}, {target}, {kind}: {code} {said.strip()[-300:]}")
            shutil.rmtree(folder)
    for (target, code), count in sorted(counts.items()):
        print(f"{target:40} exit {code:2}: {count}")
    print(f"{wish.rounds} rounds, {bad} tracebacks")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
