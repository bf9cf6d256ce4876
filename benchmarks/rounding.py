"""How far padding and batch size move an answer: every head, from one question at a time to many.

    python benchmarks/rounding.py

Random models of 4 layers, 256 wide, whose weights are enlarged until their answers differ; 60
questions of unequal length, each a choice of three (the classifier: its labels). The reference asks
them one by one, so that nothing is padded. Printed per batch size: the largest difference of a
log-likelihood in nats, absolute and relative, and how many choices changed.
"""

from __future__ import annotations

import random
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
        choices = tuple(f" {' '.join(rng.choices(words, k=rng.randint(1, 3)))}" for _ in range(3))
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


def compare(name: str, dtype: torch.dtype, device: str) -> None:
    head: Head = make_model(name, 10)[0]
    asked = questions(head, random.Random(0))
    texts = [r.text if isinstance(r, Classify) else r.prompt + "".join(r.choices) for r in asked]
    tokenizer = make_tokenizer(texts)
    model = make_model(name, len(tokenizer))[1].to(device, dtype)
    alone = make_predictor(head, model, tokenizer)
    reference = [numbers(alone.answer(alone.prepare([request]))[0]) for request in asked]
    for tokens in BATCHES:
        predictor = make_predictor(head, model, tokenizer, tokens_per_batch=tokens)
        found = [numbers(reply) for reply in predictor.answer(predictor.prepare(asked))]
        pairs = [
            (a, b) for x, y in zip(found, reference, strict=True) for a, b in zip(x, y, strict=True)
        ]
        absolute = max(abs(a - b) for a, b in pairs)
        relative = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
        changed = sum(
            x.index(max(x)) != y.index(max(y)) for x, y in zip(found, reference, strict=True)
        )
        print(
            f"{name}, {str(dtype).removeprefix('torch.')}, {tokens} tokens a batch: "
            f"{absolute:.1e} nats, {relative:.1e} relative, {changed} of {len(asked)} choices",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"on {device}")
    for name in ("gpt2", "llama", "roberta", "roberta classifier", "bart"):
        for dtype in (torch.float32, torch.bfloat16):
            compare(name, dtype, device)


if __name__ == "__main__":
    main()
