"""How far padding and batch size move an answer: every head, from one question at a time to many.

    python benchmarks/rounding.py

Random models of 4 layers, 256 wide, whose weights are enlarged until their answers differ; 60
questions of unequal length, each a choice of three (the classifier: its labels). Exact is the same
model in float64; alone, the questions are asked one by one, so that nothing is padded. Printed per
batch size: what the answers of batches and those of questions alone are off, in nats, and how many
choices changed. It ends with 1 where batches are off by more than a small multiple of what the
questions alone are (tests/exactness.py), or a choice changed that was not that near a tie.
"""

from __future__ import annotations

import copy
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from search.evaluation.predictor import make_predictor
from tasks.base import MASK, Choose, Chosen, Classify, Head, Reply, Request

Rounding = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "exactness.py"))["Rounding"]
QUESTIONS = 60
BATCHES = (256, 4096)
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
WIDTH, LAYERS, HEADS, PLACES = 256, 4, 4, 300


def questions(head: Head, rng: random.Random) -> list[Request]:
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(900)]
    found: list[Request] = []
    for _ in range(QUESTIONS):
        text = " ".join(rng.choices(words, k=rng.randint(3, 60)))
        choices: tuple[str, ...] = ()
        while len(set(choices)) < 3:  # equal ones are refused, for no model tells them apart
            endings = [rng.choices(words, k=rng.randint(1, 3)) for _ in range(3)]
            choices = tuple(f" {' '.join(ending)}" for ending in endings)
        if head == "classifier":
            found.append(Classify(text))
        elif head == "masked":
            found.append(Choose(f"{text} {MASK} .", choices))
        else:
            found.append(Choose(text, choices))
    return found


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        texts, vocab_size=1000, special_tokens=SPECIALS, show_progress=False
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, mask_token="<mask>", **names
    )


def make_model(name: str, vocabulary: int) -> tuple[Head, Any]:
    common = {"vocab_size": vocabulary, **IDS}
    gpt = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": PLACES}
    own = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": PLACES,
    }
    pair = {"d_model": WIDTH, "max_position_embeddings": PLACES, "decoder_start_token_id": 2}
    pair |= {f"{side}_layers": LAYERS for side in ("encoder", "decoder")}
    pair |= {f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")}
    pair |= {f"{side}_ffn_dim": 4 * WIDTH for side in ("encoder", "decoder")}
    torch.manual_seed(0)
    head: Head
    match name:
        case "gpt2":
            head, model = "causal", GPT2LMHeadModel(GPT2Config(**gpt, **common))
        case "llama":
            head, model = "causal", LlamaForCausalLM(LlamaConfig(**own, **common))
        case "roberta":
            head, model = "masked", RobertaForMaskedLM(RobertaConfig(**own, **common))
        case "roberta classifier":
            head = "classifier"
            config = RobertaConfig(**own, **common, num_labels=3)
            model = RobertaForSequenceClassification(config)
        case _:
            head, model = "seq2seq", BartForConditionalGeneration(BartConfig(**pair, **common))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return head, model.eval()


def numbers(reply: Reply) -> tuple[float, ...]:
    return reply.log_likelihoods if isinstance(reply, Chosen) else reply.log_probabilities


Numbers = list[tuple[float, ...]]


def ask_alone(head: Head, model: Any, tokenizer: Any, asked: list[Request]) -> Numbers:
    alone = make_predictor(head, model, tokenizer)
    return [numbers(alone.answer(alone.prepare([request]))[0]) for request in asked]


def best(values: tuple[float, ...]) -> int:
    return values.index(max(values))


def margin(values: tuple[float, ...]) -> float:
    """How far the best is before the next."""
    first, second = sorted(values, reverse=True)[:2]
    return first - second


def compare(name: str, dtype: torch.dtype, device: str) -> bool:
    head: Head = make_model(name, 10)[0]
    asked = questions(head, random.Random(0))
    texts = [r.text if isinstance(r, Classify) else r.prompt + "".join(r.choices) for r in asked]
    tokenizer = make_tokenizer(texts)
    model = make_model(name, len(tokenizer))[1].to(device, dtype)
    exact = ask_alone(head, copy.deepcopy(model).double(), tokenizer, asked)
    alone = ask_alone(head, model, tokenizer, asked)
    holds = True
    for tokens in BATCHES:
        predictor = make_predictor(head, model, tokenizer, tokens_per_batch=tokens)
        found = [numbers(reply) for reply in predictor.answer(predictor.prepare(asked))]
        flat = ([value for row in rows for value in row] for rows in (found, alone, exact))
        far = Rounding().distance(*flat, dtype)
        changed = [row for row, right in zip(found, exact, strict=True) if best(row) != best(right)]
        clear = [row for row in changed if margin(row) > 2 * far.allowed]
        holds &= far.holds and not clear
        print(
            f"{name}, {str(dtype).removeprefix('torch.')}, {tokens} tokens a batch: "
            f"{far.off:.1e} nats off, alone {far.own:.1e}, allowed {far.allowed:.1e}; "
            f"{len(changed)} of {len(asked)} choices changed, {len(clear)} of them no near tie: "
            f"{'holds' if far.holds and not clear else 'BROKEN'}",
            flush=True,
        )
    return holds


def main() -> int:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"on {device}")
    names = ("gpt2", "llama", "roberta", "roberta classifier", "bart")
    kinds = [(name, dtype) for name in names for dtype in (torch.float32, torch.bfloat16)]
    return 0 if all([compare(*kind, device) for kind in kinds]) else 1


if __name__ == "__main__":
    sys.exit(main())
