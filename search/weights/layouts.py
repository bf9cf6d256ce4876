"""Names per family, as data: which module of a block is which matrix type.

A row costs one line: its name, the ``model_type`` values it serves, and the names of its modules
inside a block. A name is matched whole; ``*`` stands for a number and ``{expert}`` for an expert's.
The value reads ``[words:] type [type ...]``: several types are fused in one weight in that order.
Words before the colon say how: ``heads`` (one period of all types per head or key-value head),
``alternate`` (row by row), ``mp4`` (four periods, CodeGen's), ``falcon`` and ``bigcode`` (as their
configuration says), ``transposed`` (stored [in, out]), ``cross`` (from decoder to encoder).
``router`` and ``own`` have no type: they are listed under their module's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from search.weights.roles import Role, name_regex


@dataclass(frozen=True)
class Layout:
    """One row of the table. `inner`: list of blocks inside each child; `shared`: blocks repeat."""

    name: str
    models: tuple[str, ...]
    names: Mapping[str, str] = field(hash=False)
    inner: str = ""
    shared: bool = False

    def role(self, local: str) -> Role | None:
        """The role of the weight called `local` inside a block, or None if the row has none."""
        for pattern, text in self.names.items():
            if name_regex(pattern).fullmatch(local):
                return Role.parse(text, pattern)
        return None


def _attn(prefix: str, names: str, words: str = "") -> dict[str, str]:
    """Rows for the query, key, value and output of one attention, named in that order."""
    kinds = zip(names.split(), ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True)
    return {f"{prefix}.{name}": f"{words}{kind}" for name, kind in kinds}


QKV = "q_proj k_proj v_proj"
GATE_UP = "fc_in fc_up"

_SELF = _attn("self_attn", "q_proj k_proj v_proj o_proj")
_SELF_OUT = _attn("self_attn", "q_proj k_proj v_proj out_proj")
_CROSS_OUT = _attn("encoder_attn", "q_proj k_proj v_proj out_proj", "cross:")


def _gated(prefix: str) -> dict[str, str]:
    return {
        f"{prefix}.gate_proj": "fc_in",
        f"{prefix}.up_proj": "fc_up",
        f"{prefix}.down_proj": "fc_out",
    }


_MLP_12 = {"mlp.fc1": "fc_in", "mlp.fc2": "fc_out"}
_FC_12 = {"fc1": "fc_in", "fc2": "fc_out"}
_MLP_C = {"mlp.c_fc": "fc_in", "mlp.c_proj": "fc_out"}
_MLP_4H = {"mlp.dense_h_to_4h": "fc_in", "mlp.dense_4h_to_h": "fc_out"}
_MLP_FUSED = {"mlp.gate_up_proj": GATE_UP, "mlp.down_proj": "fc_out"}


def _experts(prefix: str, words: str = "") -> dict[str, str]:
    """A mixture: stacked experts, experts as modules, shared experts (always on), the router."""
    return {
        f"{prefix}.experts.gate_up_proj": f"{words}{GATE_UP}",
        f"{prefix}.experts.down_proj": f"{words.replace('alternate', '')}fc_out",
        f"{prefix}.experts.{{expert}}.gate_proj": "fc_in",
        f"{prefix}.experts.{{expert}}.up_proj": "fc_up",
        f"{prefix}.experts.{{expert}}.down_proj": "fc_out",
        f"{prefix}.experts.{{expert}}.w1": "fc_in",
        f"{prefix}.experts.{{expert}}.w3": "fc_up",
        f"{prefix}.experts.{{expert}}.w2": "fc_out",
        **_gated(f"{prefix}.shared_expert"),
        **_gated(f"{prefix}.shared_experts"),
        f"{prefix}.shared_expert_gate": "router",
        f"{prefix}.gate": "router",
        f"{prefix}.router": "router",
    }


_MOE = _experts("mlp") | _experts("block_sparse_moe")
_LINEAR = {"linear_attn.out_proj": "out_proj"} | {
    f"linear_attn.{name}": "own"
    for name in ("in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
}
_LATENT = {
    f"self_attn.{name}": "own"
    for name in (
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
        *("indexer.wk", "indexer.wq_b", "indexer.weights_proj"),
    )
}
_GPT2 = {
    "attn.c_attn": QKV,
    "attn.c_proj": "out_proj",
    "crossattention.q_attn": "cross: q_proj",
    "crossattention.c_attn": "cross: k_proj v_proj",
    "crossattention.c_proj": "cross: out_proj",
    **_MLP_C,
}
_BERT = {
    **_attn("attention.self", "query key value dense"),
    "attention.output.dense": "out_proj",
    **_attn("crossattention.self", "query key value dense", "cross:"),
    "crossattention.output.dense": "cross: out_proj",
    "intermediate.dense": "fc_in",
    "output.dense": "fc_out",
}
_VIT = {
    **_attn("attention", "q_proj k_proj v_proj o_proj"),
    **_attn("attention.attention", "query key value dense"),
    "attention.output.dense": "out_proj",
    "intermediate.dense": "fc_in",
    "output.dense": "fc_out",
    **_MLP_12,
}
_T5 = {
    **_attn("layer.*.SelfAttention", "q k v o"),
    **_attn("layer.*.LocalSelfAttention", "q k v o"),
    **_attn("layer.*.TransientGlobalSelfAttention", "q k v o"),
    **_attn("layer.*.EncDecAttention", "q k v o", "cross:"),
    "layer.*.DenseReluDense.wi": "fc_in",
    "layer.*.DenseReluDense.wi_0": "fc_in",
    "layer.*.DenseReluDense.wi_1": "fc_up",
    "layer.*.DenseReluDense.wo": "fc_out",
    "layer.*.mlp.wi": "fc_in",
    "layer.*.mlp.wo": "fc_out",
    "layer.*.mlp.experts.expert_{expert}.wi": "fc_in",
    "layer.*.mlp.experts.expert_{expert}.wo": "fc_out",
    "layer.*.mlp.router.classifier": "router",
}
_POSITIONS = {
    f"attention.self.{name}": "own"
    for name in ("pos_proj", "pos_q_proj", "pos_key_proj", "pos_query_proj")
}
_NEOX = {"attention.query_key_value": f"heads:{QKV}", "attention.dense": "out_proj", **_MLP_4H}
_BLOOM = {"self_attention.dense": "out_proj", **_MLP_4H}

LAYOUTS: tuple[Layout, ...] = (
    Layout("gpt2", ("gpt2", "decision_transformer", "openai-gpt", "imagegpt"), _GPT2),
    Layout("gpt-bigcode", ("gpt_bigcode",), {**_GPT2, "attn.c_attn": f"bigcode:{QKV}"}),
    Layout(
        "gptj",
        ("gptj",),
        {
            **_attn("attn", "q_proj k_proj v_proj out_proj"),
            "mlp.fc_in": "fc_in",
            "mlp.fc_out": "fc_out",
        },
    ),
    Layout(
        "codegen",
        ("codegen",),
        {
            "attn.qkv_proj": "mp4: q_proj v_proj k_proj",
            "attn.out_proj": "out_proj",
            "mlp.fc_in": "fc_in",
            "mlp.fc_out": "fc_out",
        },
    ),
    Layout(
        "gpt-neo",
        ("gpt_neo",),
        {**_attn("attn.attention", "q_proj k_proj v_proj out_proj"), **_MLP_C},
    ),
    Layout("gpt-neox", ("gpt_neox", "gpt_neox_japanese"), _NEOX),
    Layout("opt", ("opt", "biogpt", "xglm"), _SELF_OUT | _FC_12),
    Layout("bloom", ("bloom",), {"self_attention.query_key_value": f"heads:{QKV}", **_BLOOM}),
    Layout("falcon", ("falcon",), {"self_attention.query_key_value": f"falcon:{QKV}", **_BLOOM}),
    Layout(
        "mpt",
        ("mpt",),
        {
            "attn.Wqkv": QKV,
            "attn.out_proj": "out_proj",
            "ffn.up_proj": "fc_in",
            "ffn.down_proj": "fc_out",
        },
    ),
    Layout(
        "llama",
        (
            *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2"),
            *("gemma3", "gemma3_text", "olmo", "olmo2", "olmo3", "granite", "stablelm", "cohere"),
            *("cohere2", "smollm3", "seed_oss", "exaone4", "helium", "arcee", "internlm3"),
        ),
        _SELF | _gated("mlp"),
    ),
    Layout(
        "llama-moe",
        (
            *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "minimax_m2"),
            *("glm4_moe", "dots1", "ernie4_5_moe", "flex_olmo", "hunyuan_v1_moe", "qwen3_next"),
            *("qwen3_5_moe_text", "qwen3_5_text"),
        ),
        _SELF | _gated("mlp") | _MOE | _LINEAR,
    ),
    Layout(
        "deepseek",
        (
            *("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"),
            *("mistral4", "minicpm3", "youtu", "axk1"),
        ),
        _SELF | _LATENT | _gated("mlp") | _MOE,
    ),
    Layout(
        "llama4",
        ("llama4_text", "llama4"),
        _SELF | _gated("feed_forward") | _experts("feed_forward", "transposed:"),
    ),
    Layout("gpt-oss", ("gpt_oss",), _SELF | _experts("mlp", "alternate transposed:")),
    Layout(
        "phi",
        ("phi",),
        {**_attn("self_attn", "q_proj k_proj v_proj dense"), **_MLP_12},
    ),
    Layout(
        "phi-mixer",
        ("phi-msft", "mixformer-sequential"),
        {"mixer.Wqkv": QKV, "mixer.out_proj": "out_proj", **_MLP_12},
    ),
    Layout(
        "phi3",
        ("phi3", "phi4_multimodal"),
        {"self_attn.qkv_proj": QKV, "self_attn.o_proj": "out_proj", **_MLP_FUSED},
    ),
    Layout("glm", ("glm", "glm4"), _SELF | _MLP_FUSED),
    Layout("starcoder2", ("starcoder2",), _SELF | _MLP_C),
    Layout("nemotron", ("nemotron",), {**_SELF, "mlp.up_proj": "fc_in", "mlp.down_proj": "fc_out"}),
    Layout(
        "persimmon",
        ("persimmon",),
        {"self_attn.query_key_value": f"heads:{QKV}", "self_attn.dense": "out_proj", **_MLP_4H},
    ),
    Layout(
        "bert",
        (
            *("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "electra", "ernie"),
            *("data2vec-text", "mpnet", "layoutlm", "splinter", "roberta-prelayernorm", "esm"),
        ),
        _BERT,
    ),
    Layout(
        "distilbert",
        ("distilbert",),
        {
            **_attn("attention", "q_lin k_lin v_lin out_lin"),
            "ffn.lin1": "fc_in",
            "ffn.lin2": "fc_out",
        },
    ),
    Layout(
        "deberta",
        ("deberta",),
        {**_BERT, "attention.self.in_proj": f"heads:{QKV}", **_POSITIONS},
    ),
    Layout(
        "deberta-v2",
        ("deberta-v2",),
        {
            **_BERT,
            **_attn("attention.self", "query_proj key_proj value_proj dense"),
            **_POSITIONS,
        },
    ),
    Layout(
        "modernbert",
        ("modernbert", "modernbert-decoder"),
        {
            "attn.Wqkv": QKV,
            **_attn("attn", "q_proj k_proj v_proj Wo"),
            "mlp.Wi": GATE_UP,
            "mlp.Wo": "fc_out",
        },
    ),
    Layout(
        "albert",
        ("albert",),
        {
            **_attn("attention", "query key value dense"),
            "ffn": "fc_in",
            "ffn_output": "fc_out",
        },
        inner="albert_layers",
        shared=True,
    ),
    Layout("t5", ("t5", "mt5", "umt5", "longt5", "byt5", "switch_transformers"), _T5),
    Layout(
        "bart",
        (
            *("bart", "mbart", "whisper", "pegasus", "marian", "m2m_100", "blenderbot"),
            *("blenderbot-small", "plbart", "nllb", "speech_to_text"),
        ),
        _SELF_OUT | _CROSS_OUT | _FC_12,
    ),
    Layout(
        "nllb-moe",
        ("nllb-moe",),
        {
            **_SELF_OUT,
            **_attn("cross_attention", "q_proj k_proj v_proj out_proj", "cross:"),
            "ffn.fc1": "fc_in",
            "ffn.fc2": "fc_out",
            "ffn.experts.expert_{expert}.fc1": "fc_in",
            "ffn.experts.expert_{expert}.fc2": "fc_out",
            "ffn.router.classifier": "router",
        },
    ),
    Layout("vit", ("vit", "deit", "dinov2", "beit", "vit_mae", "vit_msn"), _VIT),
    Layout(
        "clip",
        (
            *("clip_text_model", "clip_vision_model", "clip", "siglip", "siglip_text_model"),
            "siglip_vision_model",
        ),
        _SELF_OUT | _MLP_12,
    ),
)


@cache
def layout_of(model_type: str) -> Layout | None:
    """The row of the table that serves `model_type`, or None."""
    return next((layout for layout in LAYOUTS if model_type in layout.models), None)
