"""Choices that share their prompt: the results of separate rows, at the cost of one prompt.

To rounding: both are compared with separate rows in float64.
"""

import pytest
import torch
import transformers
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoConfig

from search.evaluation import causal
from search.evaluation.causal import CausalPredictor
from search.reuse.batching import Scored, TokenRow
from search.reuse.forward import ForwardPasses
from search.reuse.shared_prompts import BranchedBatch, collate_branched, share_prompt
from search.weights.matrices import find_matrices
from tasks.base import Choose

SIZES = dict(
    vocab_size=420, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=56, initializer_range=0.2,
)  # fmt: skip
GROUPED = dict(SIZES, num_key_value_heads=2)
GPT = dict(vocab_size=420, n_embd=32, n_layer=3, n_head=4, initializer_range=0.2)
BEAR = {
    "gpt2": GPT,
    "gptj": dict(GPT, rotary_dim=4),
    "gpt_neox": SIZES,
    "llama": GROUPED,
    "phi": SIZES,
    "mixtral": dict(GROUPED, num_local_experts=3, num_experts_per_tok=2),
    "qwen3": dict(GROUPED, head_dim=8),
    "opt": dict(SIZES, ffn_dim=56, word_embed_proj_dim=32),
}
BEAR_NOT = {
    "bloom": dict(vocab_size=420, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.2),
    "mistral": dict(GROUPED, sliding_window=6),
    "mamba": dict(vocab_size=420, hidden_size=32, num_hidden_layers=2, initializer_range=0.2),
}
PROMPT = "The profession of Arun Nehru is politician, and the mother tongue of Danielle is"
CHOICES = (" French film", " French dull", " a politician in Paris", " no")
QUESTIONS = [
    Choose(PROMPT, CHOICES),
    Choose(PROMPT + " not", CHOICES[1:]),
    Choose("Review:", (" a fine film", " dull")),
    Choose(PROMPT + " (or is)", (" x", " y")),
]


def replies(kind, settings, tokenizers, monkeypatch, *, shared, twin=None):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    model = twin(model) if twin else model
    if not shared:
        monkeypatch.setattr(causal, "share_prompt", lambda rows: None)
    passes = ForwardPasses.of(model, find_matrices(model)) if kind != "mamba" else None
    predictor = CausalPredictor(model, tokenizers["byte-level"], passes=passes)
    prepared = predictor.prepare(QUESTIONS)
    predictor.record(prepared)
    return predictor.answer(prepared), prepared


@pytest.mark.parametrize("kind", BEAR)
def test_shared_prompts_give_what_separate_rows_give(kind, tokenizers, monkeypatch, rounding):
    found, prepared = replies(kind, BEAR[kind], tokenizers, monkeypatch, shared=True)
    expected, plain = replies(kind, BEAR[kind], tokenizers, monkeypatch, shared=False)
    assert any(isinstance(batch, BranchedBatch) for batch in prepared.batches)
    assert sum(b.tokens for b in prepared.batches) < 0.7 * sum(b.tokens for b in plain.batches)
    exact, _ = replies(kind, BEAR[kind], tokenizers, monkeypatch, shared=False, twin=rounding.exact)
    rounding.check(
        *([v for reply in some for v in reply.log_likelihoods] for some in (found, expected, exact))
    )
    assert [len(set(ours.log_likelihoods)) for ours in found] == [4, 3, 2, 2]


@pytest.mark.parametrize("kind", BEAR_NOT)
def test_models_that_do_not_bear_it_read_separate_rows(kind, tokenizers, monkeypatch):
    found, prepared = replies(kind, BEAR_NOT[kind], tokenizers, monkeypatch, shared=True)
    expected, _ = replies(kind, BEAR_NOT[kind], tokenizers, monkeypatch, shared=False)
    assert prepared.batches, "something was to be asked"
    assert not any(isinstance(batch, BranchedBatch) for batch in prepared.batches)
    assert found == expected


tokens = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(tokens, st.lists(tokens, min_size=2, max_size=4))
def test_every_token_sees_its_own_text_at_its_own_places(prompt, endings):
    prompt = prompt * 4
    texts = [tuple(prompt + ending) for ending in endings]
    rows = [
        TokenRow(text, tuple(Scored(place, 0, 100 * n + place) for place in range(len(text))))
        for n, text in enumerate(texts)
    ]
    shared = share_prompt(rows)
    assume(shared is not None)  # hypothesis says when that is seldom
    batch = collate_branched([shared], 0, torch.device("cpu"))
    mask = batch.inputs(torch.float32)["attention_mask"][0, 0] == 0
    for place, slot in zip(batch.positions.tolist(), batch.slots.tolist(), strict=True):
        seen = mask[place].nonzero()[:, 0]
        text = texts[slot // 100][: slot % 100 + 1]
        assert tuple(batch.input_ids[0, seen].tolist()) == text
        assert batch.position_ids[0, seen].tolist() == list(range(len(text)))
    assert len(batch.slots) == sum(map(len, texts))


def test_halves_are_the_batch():
    endings = [(1, 2), (2, 1, 1), (3,)]
    rows = [
        share_prompt(
            [
                TokenRow((5,) * size + e, (Scored(size + len(e) - 1, 7, 10 * size + n),))
                for n, e in enumerate(endings)
            ]
        )
        for size in (6, 8, 9)
    ]
    batch = collate_branched(rows, 0, torch.device("cpu"))
    first, second = batch.halves()
    assert isinstance(first, BranchedBatch)
    for part, own in ((first, rows[:1]), (second, rows[1:])):
        alone = collate_branched(own, 0, torch.device("cpu"))
        assert part.key() == alone.key()
        assert torch.equal(part.slots, alone.slots)
        assert torch.equal(part.positions, alone.positions)
