"""Parameter counts of a Flan-T5-base with factored attention, against the published ones.

    python benchmarks/flan_t5_counts.py

The model's shape alone is needed, so nothing is downloaded or computed. Published (a post on
low-rank attention in Flan-T5-base): 247.6 M parameters, 183.9 M with q, k, v at rank 384 of 768,
162.6 M with q, k, v, o.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from search.export.factored import FactoredLinear, replace_layers
from search.weights.matrices import find_matrices

SHAPE = dict(
    vocab_size=32128,
    d_model=768,
    d_ff=2048,
    d_kv=64,
    num_layers=12,
    num_decoder_layers=12,
    num_heads=12,
    feed_forward_proj="gated-gelu",
)
TYPES = {"q, k, v": ("q_proj", "k_proj", "v_proj")}
TYPES["q, k, v, o"] = (*TYPES["q, k, v"], "out_proj")
PUBLISHED = {"q, k, v": 183.9, "q, k, v, o": 162.6}


def build() -> nn.Module:
    config = T5Config(**SHAPE)
    config.tie_word_embeddings = False  # Flan-T5 has an output matrix of its own
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    model.set_input_embeddings(model.shared)  # encoder and decoder share theirs
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> int:
    whole = count(build())
    agree = round(whole / 1e6, 1) == 247.6
    print(f"dense {whole:,} (published 247.6 M)")
    print("| factored | rank | parameters | outside the factored layers | published |")
    print("|---|---|---|---|---|")
    for name, types in TYPES.items():
        for rank in (384, 382):
            model = build()
            modules = [m.module for m in find_matrices(model) if m.ref.type in types]
            replace_layers(model, dict.fromkeys(modules, rank))
            inside = sum(count(m) for m in model.modules() if isinstance(m, FactoredLinear))
            outside = count(model) - inside
            agree &= round(outside / 1e6, 1) == PUBLISHED[name]
            print(f"| {name} | {rank} | {count(model):,} | {outside:,} | {PUBLISHED[name]} M |")
    print("published = outside the factored layers:", agree)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
