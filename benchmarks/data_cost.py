"""What loading, splitting and tokenising 65,757 CounterFact-like questions costs, and its memory.

    python benchmarks/data_cost.py

21,919 generated facts in ROME's schema (one statement, two paraphrases, prompts of unequal length)
are written as JSON and read as the task `counterfact` reads them; then split, digested and laid
before a small causal model with a byte-level vocabulary of 20,000 trained on them. The last line
is the same tokens by one bare call of the tokenizer, and the resident memory of Python with the
libraries alone is the first.
"""

from __future__ import annotations

import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from search.evaluation.predictor import make_predictor
from search.study.identity import digest_examples
from search.study.questions import write_questions
from tasks.counterfact import CounterFact
from tasks.splits import split_tasks

FACTS = 21_919
END = "<|endoftext|>"


def words(rng: random.Random, count: int) -> list[str]:
    """Made-up words of two to four syllables."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    return ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(count)]


def facts(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Records of ROME's schema."""
    lexicon, relations = words(rng, 6000), words(rng, 34)
    for number in range(FACTS):
        subject = " ".join(w.title() for w in rng.choices(lexicon, k=rng.randint(1, 3)))
        relation = rng.choice(relations)
        stories = [" ".join(rng.choices(lexicon, k=rng.randint(4, 22))) for _ in range(2)]
        yield {
            "case_id": number,
            "requested_rewrite": {
                "prompt": f"The {relation} of {{}} is",
                "relation_id": relation,
                "subject": subject,
                "target_true": {"str": rng.choice(lexicon).title()},
                "target_new": {"str": rng.choice(lexicon).title()},
            },
            "paraphrase_prompts": [f"{s.capitalize()}. {subject}'s {relation} is" for s in stories],
        }


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print how long a stage took, and the highest resident memory so far."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{name}: {time.perf_counter() - started:.2f} s, peak {peak:.0f} MiB", flush=True)


def make_model(texts: list[str]) -> tuple[Any, Any]:
    """A small random model, whose vocabulary is trained on `texts`."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=20_000, special_tokens=[END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token=END, eos_token=END
    )
    size = {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **size)
    return GPT2LMHeadModel(config).eval(), tokenizer


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "counterfact.json"
        path.write_text(json.dumps(list(facts(random.Random(0)))))
        print(f"{FACTS} facts, {path.stat().st_size / 2**20:.1f} MiB of JSON")
        task = CounterFact()
        with stage("(libraries imported)"):
            pass
        with stage("load"):
            examples = task.load(str(path))
        with stage("split by group"):
            split = split_tasks(examples, 0.2, 0)
        with stage("digest of every question"):
            digest_examples(split.validation, split.test)
        with stage("questions.parquet"):
            write_questions(Path(name), split)
        model, tokenizer = make_model([x.prompt for x in examples])
        with stage("(model and vocabulary made)"):
            pass
        predictor = make_predictor("causal", model, tokenizer, tokens_per_batch=4096)
        both = (("validation", split.validation), ("test", split.test))
        kept = {}
        for part, asked in both:
            with stage(f"requests and batches of {part} ({len(asked)})"):
                requests = [task.request(example, "causal") for example in asked]
                kept[part] = predictor.prepare(requests)
        with stage("(bare tokenizer on the same prompts and answers)"):
            tokenizer([f"{x.prompt} {x.answer}" for x in examples])
        cells = sum(b.input_ids.numel() for p in kept.values() for b in p.batches)
        read = sum(int(b.attention_mask.sum()) for p in kept.values() for b in p.batches)
        count = sum(len(p.batches) for p in kept.values())
        print(f"{count} batches, {cells} places, {1 - read / cells:.1%} of them padding")


if __name__ == "__main__":
    main()
