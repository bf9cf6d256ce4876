"""Strategy snr against laserRMT's arithmetic, written out over the weights of three models."""

import math

import numpy as np
import pytest
import torch
import transformers
from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.model import ModelSource
from search.report.spectra_data import spectra_of_model
from search.sections import SpaceConfig
from search.space import Space
from search.strategies.base import BASELINE_NUMBER, History, Setting, Tried
from search.strategies.snr import LOWEST, SignalToNoise
from search.weights.matrices import find_matrices
from search.weights.spectra import Spectrum

LLAMA = {"self_attn.q_proj": "q_proj", "self_attn.k_proj": "k_proj", "self_attn.v_proj": "v_proj",
         "self_attn.o_proj": "out_proj", "mlp.gate_proj": "fc_in", "mlp.up_proj": "fc_up",
         "mlp.down_proj": "fc_out"}  # fmt: skip
GPTJ = {"attn.q_proj": "q_proj", "attn.k_proj": "k_proj", "attn.v_proj": "v_proj",
        "attn.out_proj": "out_proj", "mlp.fc_in": "fc_in", "mlp.fc_out": "fc_out"}  # fmt: skip
GPT2 = {"attn.c_proj": "out_proj", "mlp.c_fc": "fc_in", "mlp.c_proj": "fc_out"}
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 72}  # fmt: skip
GPT = {"vocab_size": 50, "n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 16}
FAMILIES = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**SMALL), LLAMA),
    "gptj": (transformers.GPTJForCausalLM, transformers.GPTJConfig(**GPT, rotary_dim=4), GPTJ),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(**GPT), GPT2),
}


def _by_hand(model, names):
    """Signal over noise by address, undivided; n / m the ratio of the weight's own sides."""
    found = {}
    for name, parameter in model.named_parameters():
        for part, kind in names.items():
            if name.endswith(f".{part}.weight"):
                layer = next(int(word) for word in name.split(".") if word.isdigit())
                values = torch.linalg.svdvals(parameter.detach().double())
                low, high = torch.quantile(values, 0.25), torch.quantile(values, 0.75)
                n, m = parameter.shape
                beta = n / m if n < m else m / n
                edge = (high - low) / 1.349 * math.sqrt((1 + math.sqrt(beta)) ** 2)
                signal, noise = values[values > edge].sum(), values[values <= edge].sum()
                kept = int((values > edge).sum())
                ratio = float(signal / noise) if noise != 0 else math.inf
                found[MatrixRef(layer, kind)] = (ratio, kept, ratio / float(values[0]))
    return found


def _tried_in_order(setting):
    """What the strategy tries where every cut is kept."""
    strategy, history = SignalToNoise(setting), History(setting.max_ranks, 100)
    history.put(Tried(BASELINE_NUMBER, Composition(), "", TrialState.COMPLETE, (0.0,), 1.0))
    cut = []
    while (proposed := strategy.suggest(history)) is not None:
        (new,) = set(proposed.interventions) - set(cut)
        cut.append(new)
        effect = history.effect(proposed)
        history.put(Tried(len(history), proposed, effect, TrialState.COMPLETE, (0.0,), 1.0))
    return [(i.matrix, i.rule.value) for i in cut]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_is_that_of_signal_over_noise_undivided(family, tmp_path):
    kind, config, names = FAMILIES[family]
    torch.manual_seed(3)
    model = kind(config)
    with torch.no_grad():  # scales as in trained models, which set the two quantities apart
        for place, parameter in enumerate(model.parameters()):
            if parameter.ndim == 2:
                rank_one = torch.outer(*(torch.randn(side) for side in parameter.shape))
                parameter.add_(rank_one, alpha=0.002 * (place % 5)).mul_(1 + 7 * place % 11)
    model.save_pretrained(tmp_path)
    source = ModelSource(str(tmp_path))
    matrices = find_matrices(source.skeleton())
    types = sorted(set(names.values()))
    space = Space.build(SpaceConfig(matrices=types, max_interventions=1), matrices)
    spectra = {MatrixRef.parse(s.name): s for s in spectra_of_model(source, [], None)}
    full = {matrix.ref: matrix.max_rank for matrix in matrices}
    expected = _by_hand(model, names)
    assert set(space.matrices) == set(expected)
    for ref, (ratio, kept, divided) in expected.items():
        assert spectra[ref].signal_to_noise() == pytest.approx(ratio, rel=1e-5)
        assert spectra[ref].scanner_snr == pytest.approx(divided, rel=1e-5)
        assert spectra[ref].kept("laser-rmt") == kept
    order = sorted(expected, key=lambda ref: expected[ref][0])
    tried = _tried_in_order(Setting(space, full, spectra=spectra))
    # A cut that takes nothing away is one of the fifteen there, and no trial here.
    changes = [(ref, expected[ref][1]) for ref in order[:LOWEST] if expected[ref][1] < full[ref]]
    assert tried == changes
    other = sorted(expected, key=lambda ref: expected[ref][2])
    assert other[:LOWEST] != order[:LOWEST], "the scanners' quantity would give another order"


def test_the_zero_matrix_has_no_signal():
    nothing = Spectrum("0.fc_in", "m", "", (4, 3), np.zeros(3))
    assert (nothing.signal_to_noise(), nothing.scanner_snr) == (0.0, 0.0)
    flat = Spectrum("0.fc_in", "m", "", (3, 3), np.ones(3))
    assert flat.signal_to_noise() == math.inf
