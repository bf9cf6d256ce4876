"""Each family on a tiny random model: every linear map found once, with its type and its rows."""

import re
from collections import Counter

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig

from search.cuts.refs import GROUPS, MatrixRef
from search.evaluation.generation import cache_name
from search.weights.layouts import LAYOUTS
from search.weights.matrices import find_matrices

SIZES = dict(
    vocab_size=48,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=56,
    pad_token_id=0,
)
GROUPED = dict(SIZES, num_key_value_heads=2)
HEADS = dict(GROUPED, head_dim=8)
GPT = dict(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=32)
MOE = dict(HEADS, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24)
LOCAL_MOE = dict(GROUPED, num_local_experts=3, num_experts_per_tok=2)
LATENT = dict(
    SIZES,
    num_key_value_heads=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    first_k_dense_replace=1,
    kv_lora_rank=16,
    q_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
    n_group=1,
    topk_group=1,
    n_shared_experts=1,
)
SEQ2SEQ = dict(
    vocab_size=48,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=56,
    decoder_ffn_dim=56,
    pad_token_id=0,
)
T5 = dict(vocab_size=48, d_model=32, num_layers=2, num_heads=4, d_ff=56, d_kv=8)
IMAGE = dict(image_size=8, patch_size=4)
VISION = dict(SIZES, **IMAGE) | {"vocab_size": None}
SPECIAL = dict(bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
SPARSE = dict(num_sparse_encoder_layers=1, num_sparse_decoder_layers=1)
DELTA = dict(
    layer_types=["linear_attention", "full_attention"],
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
)
POSITIONS = dict(relative_attention=True, pos_att_type=["c2p", "p2c"], max_position_embeddings=32)

PLAIN = "q_proj k_proj v_proj out_proj fc_in fc_out"
GATED = "q_proj k_proj v_proj out_proj fc_in fc_up fc_out"
EXPERTS = " experts.fc_in*3 experts.fc_up*3 experts.fc_out*3"
ATTENTION = "q_proj k_proj v_proj out_proj"
CROSS = " cross.q_proj cross.k_proj cross.v_proj cross.out_proj"
SWITCH = ATTENTION + " experts.fc_in*3 experts.fc_out*3 own"
NAMED = "own*4 out_proj fc_in fc_up fc_out"

LM, MLM, BASE = "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModel"
S2S = "AutoModelForSeq2SeqLM"

# name: (auto class, model_type, configuration, what the last block of each stack holds)
FAMILIES = {
    "GPT-2": (LM, "gpt2", GPT, PLAIN),
    "GPT-2 with cross-attention": (LM, "gpt2", dict(GPT, add_cross_attention=True), PLAIN + CROSS),
    "GPT-BigCode": (LM, "gpt_bigcode", GPT, PLAIN),
    "GPT-BigCode multi-head": (LM, "gpt_bigcode", dict(GPT, multi_query=False), PLAIN),
    "GPT-J": (LM, "gptj", dict(GPT, rotary_dim=4), PLAIN),
    "CodeGen": (LM, "codegen", dict(GPT, rotary_dim=4), PLAIN),
    "GPT-Neo": (
        LM,
        "gpt_neo",
        dict(
            vocab_size=48,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
        ),
        PLAIN,
    ),
    "GPT-NeoX, Pythia": (LM, "gpt_neox", SIZES, PLAIN),
    "OPT": (LM, "opt", dict(SIZES, ffn_dim=56, word_embed_proj_dim=32), PLAIN),
    "BLOOM": (LM, "bloom", dict(vocab_size=48, hidden_size=32, n_layer=2, n_head=4), PLAIN),
    "Falcon multi-query": (LM, "falcon", SIZES, PLAIN),
    "Falcon multi-head": (LM, "falcon", dict(SIZES, multi_query=False), PLAIN),
    "Falcon grouped": (
        LM,
        "falcon",
        dict(SIZES, new_decoder_architecture=True, num_kv_heads=2),
        PLAIN,
    ),
    "MPT": (LM, "mpt", dict(vocab_size=48, d_model=32, n_layers=2, n_heads=4), PLAIN),
    "BioGPT": (LM, "biogpt", SIZES, PLAIN),
    "OpenAI GPT": (LM, "openai-gpt", GPT, PLAIN),
    "Llama 1-3": (LM, "llama", GROUPED, GATED),
    "Llama 4": (
        LM,
        "llama4_text",
        dict(HEADS, num_local_experts=3, intermediate_size_mlp=48, interleave_moe_layer_step=2),
        GATED + EXPERTS + " own",
    ),
    "Mistral": (LM, "mistral", GROUPED, GATED),
    "Mixtral": (LM, "mixtral", LOCAL_MOE, ATTENTION + EXPERTS + " own"),
    "Qwen 2": (LM, "qwen2", GROUPED, GATED),
    "Qwen 2 MoE": (
        LM,
        "qwen2_moe",
        dict(MOE, shared_expert_intermediate_size=40),
        GATED + EXPERTS + " own*2",
    ),
    "Qwen 3": (LM, "qwen3", HEADS, GATED),
    "Qwen 3 MoE": (LM, "qwen3_moe", MOE, ATTENTION + EXPERTS + " own"),
    "Qwen 3 Next": (
        LM,
        "qwen3_next",
        dict(MOE, **DELTA, shared_expert_intermediate_size=40),
        GATED + EXPERTS + " own*2",
    ),
    "Gemma": (LM, "gemma", HEADS, GATED),
    "Gemma 2": (LM, "gemma2", HEADS, GATED),
    "Gemma 3": (LM, "gemma3_text", HEADS, GATED),
    "Gemma 3 with images": (
        "AutoModelForImageTextToText",
        "gemma3",
        dict(text_config=HEADS, vision_config=dict(SIZES, **IMAGE)),
        {"text": GATED, "vision": PLAIN},
    ),
    "Phi-1, 1.5, 2": (LM, "phi", GROUPED, PLAIN),
    "Phi-3, Phi-4": (LM, "phi3", GROUPED, GATED),
    "Phi-3.5 MoE": (LM, "phimoe", LOCAL_MOE, ATTENTION + EXPERTS + " own"),
    "StarCoder2": (LM, "starcoder2", GROUPED, PLAIN),
    "OLMo": (LM, "olmo", GROUPED, GATED),
    "OLMo 2": (LM, "olmo2", GROUPED, GATED),
    "OLMoE": (LM, "olmoe", dict(MOE), ATTENTION + EXPERTS + " own"),
    "DeepSeek V2": (LM, "deepseek_v2", LATENT, NAMED + EXPERTS.replace("3", "4") + " own"),
    "DeepSeek V3": (LM, "deepseek_v3", LATENT, NAMED + EXPERTS.replace("3", "4") + " own"),
    "GPT-OSS": (LM, "gpt_oss", dict(LOCAL_MOE, head_dim=8), ATTENTION + EXPERTS + " own"),
    "GLM": (LM, "glm", HEADS, GATED),
    "Granite": (LM, "granite", GROUPED, GATED),
    "Granite MoE": (LM, "granitemoe", LOCAL_MOE, ATTENTION + EXPERTS + " own"),
    "StableLM": (LM, "stablelm", GROUPED, GATED),
    "Cohere": (LM, "cohere", GROUPED, GATED),
    "Nemotron": (LM, "nemotron", GROUPED, PLAIN),
    "Persimmon": (LM, "persimmon", SIZES, PLAIN),
    "BERT": (MLM, "bert", SIZES, PLAIN),
    "RoBERTa": (MLM, "roberta", SIZES, PLAIN),
    "ELECTRA": (MLM, "electra", dict(SIZES, embedding_size=32), PLAIN),
    "DistilBERT": (
        MLM,
        "distilbert",
        dict(vocab_size=48, dim=32, n_layers=2, n_heads=4, hidden_dim=56),
        PLAIN,
    ),
    "DeBERTa": (MLM, "deberta", dict(SIZES, **POSITIONS), PLAIN + " own*2"),
    "DeBERTa V2, V3": (
        MLM,
        "deberta-v2",
        dict(SIZES, **POSITIONS, share_att_key=False),
        PLAIN + " own*2",
    ),
    "ModernBERT": (MLM, "modernbert", dict(SIZES, **SPECIAL), GATED),
    "ModernBERT decoder": (LM, "modernbert-decoder", dict(SIZES, **SPECIAL), GATED),
    "ALBERT": (MLM, "albert", dict(SIZES, embedding_size=16), PLAIN),
    "T5": (S2S, "t5", T5, {"encoder": PLAIN, "decoder": PLAIN + CROSS}),
    "Flan-T5, T5 1.1": (
        S2S,
        "t5",
        dict(T5, feed_forward_proj="gated-gelu"),
        {"encoder": GATED, "decoder": GATED + CROSS},
    ),
    "Switch Transformers": (
        S2S,
        "switch_transformers",
        dict(T5, num_decoder_layers=2, num_experts=3, **SPARSE),
        {"encoder": SWITCH, "decoder": SWITCH + CROSS},
    ),
    "NLLB MoE": (
        S2S,
        "nllb-moe",
        dict(SEQ2SEQ, num_experts=3, encoder_sparse_step=2, decoder_sparse_step=2),
        {"encoder": SWITCH, "decoder": SWITCH + CROSS},
    ),
    "BART": (S2S, "bart", SEQ2SEQ, {"encoder": PLAIN, "decoder": PLAIN + CROSS}),
    "Whisper": (
        "AutoModelForSpeechSeq2Seq",
        "whisper",
        SEQ2SEQ,
        {"encoder": PLAIN, "decoder": PLAIN + CROSS},
    ),
    "Whisper decoder": (LM, "whisper", SEQ2SEQ, PLAIN + CROSS),
    "ViT": ("AutoModelForImageClassification", "vit", dict(SIZES, **IMAGE), PLAIN),
    "DINOv2": ("AutoModelForImageClassification", "dinov2", dict(SIZES, **IMAGE), PLAIN),
    "CLIP": (
        BASE,
        "clip",
        dict(text_config=SIZES, vision_config=dict(SIZES, **IMAGE)),
        {"text": PLAIN, "vision": PLAIN},
    ),
    "Decision Transformer": (
        BASE,
        "decision_transformer",
        dict(hidden_size=32, n_layer=2, n_head=4, state_dim=3, act_dim=2),
        PLAIN,
    ),
}


def build(name, device="cpu"):
    auto, model_type, sizes, _ = FAMILIES[name]
    torch.manual_seed(0)
    with torch.device(device):
        config = AutoConfig.for_model(model_type, **sizes)
        return getattr(transformers, auto).from_config(config).eval()


def counted(text):
    """What a block holds: "fc_in fc_out own*2" as a Counter."""
    pairs = (word.partition("*") for word in text.split())
    return sum((Counter({kind: int(times or 1)}) for kind, _, times in pairs), Counter())


def described(refs):
    def kind(ref):
        if ref.type not in GROUPS["all"]:
            return "own"
        expert = "" if ref.expert is None else "experts."
        return f"{'cross.' if ref.cross else ''}{expert}{ref.type}"

    return Counter(kind(ref) for ref in refs)


def multiplying(model):
    """Names of the weights in blocks that multiply, found without the code under test.

    A weight of two dimensions or more below a numbered module, that is no embedding, bias,
    convolution or position table.
    """
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        owner = model.get_submodule(module)
        table = isinstance(owner, nn.Embedding | nn.Conv1d | nn.Conv2d) or "bias" in own
        numbered = re.search(r"(^|\.)(h|layers?|blocks?|albert_layers)\.\d+\.", name)
        if parameter.ndim >= 2 and numbered and not table:
            yield name


@pytest.mark.parametrize("name", FAMILIES)
def test_every_linear_map_is_found_once(name):
    """Each entry of each weight belongs to exactly one matrix, and nothing else to any."""
    model = build(name)
    found = find_matrices(model)
    counts = {n: torch.zeros(p.shape) for n, p in model.named_parameters()}
    for matrix in found:
        counts[matrix.parameter] += 0
        matrix.write(counts[matrix.parameter], matrix.read(counts[matrix.parameter]) + 1)
    expected = set(multiplying(model))
    assert expected
    for parameter, count in counts.items():
        assert (count == (1 if parameter in expected else 0)).all(), parameter
    assert len({m.ref for m in found}) == len(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_types_and_shapes(name):
    model = build(name)
    found = find_matrices(model)
    expected = FAMILIES[name][3]
    expected = expected if isinstance(expected, dict) else {"": expected}
    assert {m.ref.stack for m in found} == set(expected)
    for stack, text in expected.items():
        refs = [m.ref for m in found if m.ref.stack == stack]
        last = max(ref.layer for ref in refs)
        assert last == (0 if name == "ALBERT" else 1)
        assert described(r for r in refs if r.layer == last) == counted(text)
    for matrix in found:
        assert MatrixRef.parse(str(matrix.ref)) == matrix.ref
        read = matrix.read(model.get_parameter(matrix.parameter))
        assert tuple(read.shape) == matrix.shape and read.is_contiguous()
        if matrix.ref.type in ("fc_in", "fc_up", "q_proj"):
            assert matrix.shape[1] == 32
        if matrix.ref.type in ("fc_out", "out_proj"):
            assert matrix.shape[0] == 32
        typed = matrix.ref.type in GROUPS["all"]
        assert matrix.searchable == (typed and not matrix.shared)
        assert matrix.rule.startswith("table row")
        assert matrix.parameter.startswith(f"{matrix.block}.")


@pytest.mark.parametrize("name", FAMILIES)
def test_meta_model_lists_the_same(name):
    assert find_matrices(build(name, "meta")) == find_matrices(build(name))


def typed(model, kind, layer=1):
    """The matrices of one type and layer, experts too."""
    return [
        m
        for m in find_matrices(model)
        if m.ref.type == kind and m.ref.layer == layer and not m.ref.cross
    ]


def scale(model, matrices, factor):
    for matrix in matrices:
        parameter = model.get_parameter(matrix.parameter)
        matrix.write(parameter, matrix.read(parameter) * factor)


def silence_biases(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or name.endswith("_bias"):
                parameter.zero_()


CACHED = [
    *("GPT-2", "GPT-BigCode", "GPT-BigCode multi-head", "CodeGen", "GPT-NeoX, Pythia", "BLOOM"),
    *("Falcon multi-query", "Falcon multi-head", "Falcon grouped", "MPT"),
    *("Phi-3, Phi-4", "Llama 1-3", "Persimmon"),
]


def cached(model):
    """Keys and values of layer 1, as the model itself computes them."""
    with torch.no_grad():
        output = model(torch.tensor([[3, 7, 11, 5]]), use_cache=True)
    layer = getattr(output, cache_name(model)).layers[1]
    return layer.keys.clone(), layer.values.clone()


@pytest.mark.parametrize("name", CACHED)
def test_fused_rows_are_the_keys_and_values_of_the_model(name):
    """Doubling k_proj doubles the cached keys and leaves the values; v_proj the reverse; q neither.

    The model's own forward pass says which rows are whose.
    """
    model = build(name)
    silence_biases(model)
    keys, values = cached(model)
    normed = name == "Persimmon"  # it normalises keys, so their size is lost
    for kind, factors in {"k_proj": (2, 1), "v_proj": (1, 2), "q_proj": (1, 1)}.items():
        (matrix,) = typed(model, kind)
        original = model.get_parameter(matrix.parameter).detach().clone()
        scale(model, [matrix], 2)
        changed = cached(model)
        assert normed or torch.allclose(changed[0], factors[0] * keys, rtol=1e-4, atol=1e-6)
        assert torch.allclose(changed[1], factors[1] * values, rtol=1e-4, atol=1e-6)
        model.get_parameter(matrix.parameter).data.copy_(original)


def captured(model, module, run):
    found = []
    handle = model.get_submodule(module).register_forward_hook(
        lambda *args: found.append(args[2].detach().clone())
    )
    run()
    handle.remove()
    return found[0]


@pytest.mark.parametrize("name", ["ModernBERT", "DeBERTa", "OpenAI GPT"])
def test_fused_rows_without_a_cache(name):
    """Only doubling v_proj doubles what attention hands on; k's and q's rows bend it instead."""
    model = build(name)
    silence_biases(model)
    (out,) = typed(model, "out_proj", layer=0)

    def attended():
        with torch.no_grad():
            return captured(model, out.module, lambda: model(torch.tensor([[3, 7, 11, 5]])))

    before = attended()
    for kind in ("v_proj", "k_proj", "q_proj"):
        (matrix,) = typed(model, kind, layer=0)
        original = model.get_parameter(matrix.parameter).detach().clone()
        scale(model, [matrix], 2)
        doubled = torch.allclose(attended(), 2 * before, rtol=1e-4, atol=1e-7)
        assert doubled == (kind == "v_proj")
        model.get_parameter(matrix.parameter).data.copy_(original)


@pytest.mark.parametrize(
    "name", ["Llama 1-3", "Phi-3, Phi-4", "GLM", "ModernBERT", "Flan-T5, T5 1.1", "Mixtral"]
)
def test_the_gate_is_fc_in_and_the_linear_half_fc_up(name):
    """The output of the feed-forward network is linear in fc_up and not in fc_in."""
    model = build(name)
    silence_biases(model)
    module = {
        "Mixtral": "model.layers.0.mlp",
        "Flan-T5, T5 1.1": "encoder.block.0.layer.1.DenseReluDense",
    }.get(name, "model.layers.0.mlp")
    network = model.get_submodule(module)
    inputs = torch.randn(1, 5, 32)

    def output():
        with torch.no_grad():
            result = network(inputs)
        return result[0] if isinstance(result, tuple) else result

    before = output()
    for kind, linear in (("fc_up", True), ("fc_in", False)):
        matrices = [m for m in typed(model, kind, layer=0) if m.parameter.startswith(module)]
        scale(model, matrices, 2)
        assert torch.allclose(output(), 2 * before, rtol=1e-4, atol=1e-7) == linear
        scale(model, matrices, 0.5)


@pytest.mark.parametrize("name", ["GPT-OSS", "Llama 4"])
def test_rows_of_stacked_experts(name):
    """Through the experts' own forward pass: each expert's fc_up alone makes its half linear."""
    model = build(name)
    silence_biases(model)
    module = "model.layers.1.feed_forward.experts" if name == "Llama 4" else "model.layers.1.mlp"
    experts = model.get_submodule(module if name == "Llama 4" else f"{module}.experts")
    inputs = torch.randn(3, 4, 32)

    def output(expert):
        with torch.no_grad():
            if name == "Llama 4":
                return experts(inputs.reshape(-1, 32)).view(3, 4, 32)[expert]
            chosen = torch.full((4, 1), expert)
            weights = torch.ones(4, 1)
            return experts(inputs[expert], chosen, weights)

    if name == "GPT-OSS":
        # Its network is (up + 1) * gate * sigmoid(alpha * gate): nothing without the gate alone.
        for kind, silent in (("fc_up", False), ("fc_in", True)):
            (second,) = [m for m in typed(model, kind) if m.ref.expert == 1]
            parameter = model.get_parameter(second.parameter)
            original = parameter.detach().clone()
            scale(model, [second], 0)
            assert [bool(output(expert).abs().max() == 0) for expert in range(3)] == [
                False,
                silent,
                False,
            ]
            parameter.data.copy_(original)
        return
    before = [output(expert) for expert in range(3)]
    (second,) = [m for m in typed(model, "fc_up") if m.ref.expert == 1]
    scale(model, [second], 2)
    for expert in range(3):
        factor = 2 if expert == 1 else 1
        assert torch.allclose(output(expert), factor * before[expert], rtol=1e-4, atol=1e-9)


def test_every_row_of_the_table_is_tested_or_needs_code_from_the_hub():
    models = {entry[1] for entry in FAMILIES.values()}
    untested = [layout.name for layout in LAYOUTS if not models & set(layout.models)]
    assert untested == ["phi-mixer"]
