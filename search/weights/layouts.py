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

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from search.weights.views import View

_ORDERS = ("rows", "heads", "alternate", "mp4", "falcon", "bigcode")


@dataclass(frozen=True)
class Role:
    """What a weight is: its types in order, and how they are interleaved. No types: listed only."""

    types: tuple[str, ...] = ()
    order: str = "rows"
    cross: bool = False
    transposed: bool = False
    note: str = ""
    pattern: str = ""

    @staticmethod
    def parse(text: str, pattern: str = "") -> Role:
        """Read the value of a table row."""
        if text == "router":
            return Role(note="router of a mixture of experts", pattern=pattern)
        if text == "own":
            return Role(note="a part with no type of its own", pattern=pattern)
        head, colon, tail = text.partition(":")
        words = set(head.split()) if colon else set()
        order = next((word for word in _ORDERS if word in words), "rows")
        return Role(
            types=tuple((tail if colon else text).split()),
            order=order,
            cross="cross" in words,
            transposed="transposed" in words,
            pattern=pattern,
        )

    def expert_of(self, local: str) -> int | None:
        """The expert's index in a module name, where experts are modules of their own."""
        match = _regex(self.pattern).fullmatch(local) if self.pattern else None
        number = match.groupdict().get("expert") if match else None
        return None if number is None else int(number)

    def spans(self, rows: int, config: Any) -> list[tuple[str, View]] | None:
        """(type, view) of each part of a weight of `rows` rows; None if the sizes do not fit."""
        if len(self.types) == 1:
            return [(self.types[0], View())]
        if len(self.types) != 3:
            return self._periods(1 if self.order == "rows" else rows // len(self.types), rows)
        heads, groups, width = _attention(config, rows)
        order = self.order
        if order == "falcon":
            grouped = getattr(config, "new_decoder_architecture", False)
            order = "rows" if not grouped and getattr(config, "multi_query", False) else "heads"
            groups = groups if grouped else (1 if order == "rows" else heads)
        elif order == "bigcode":
            order = "rows" if getattr(config, "multi_query", False) else "heads"
            groups = 1 if order == "rows" else heads
        outer = {"heads": groups, "mp4": 4}.get(order, 1)
        if width * (heads + 2 * groups) != rows or heads % groups or heads % outer:
            return None
        sizes = {"q_proj": heads * width, "k_proj": groups * width, "v_proj": groups * width}
        return self._cut(outer, [sizes[kind] // outer for kind in self.types])

    def _periods(self, outer: int, rows: int) -> list[tuple[str, View]] | None:
        parts = len(self.types) * outer
        return None if rows % parts else self._cut(outer, [rows // parts] * len(self.types))

    def _cut(self, outer: int, widths: list[int]) -> list[tuple[str, View]]:
        offsets = [sum(widths[:i]) for i in range(len(widths))]
        return [
            (kind, View(outer=outer, offset=offset, width=width))
            for kind, offset, width in zip(self.types, offsets, widths, strict=True)
        ]


def _attention(config: Any, rows: int) -> tuple[int, int, int]:
    """(heads, key-value heads, rows a head) of an attention whose q, k, v make up `rows` rows."""

    def first(*names: str) -> int | None:
        values = (getattr(config, name, None) for name in names)
        return next((int(value) for value in values if value), None)

    heads = first("num_attention_heads", "n_head", "n_heads") or 1
    groups = first("num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads
    hidden = first("hidden_size", "n_embd", "d_model") or 0
    return heads, groups, first("head_dim") or (hidden // heads if hidden else rows // (3 * heads))


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern).replace(r"\*", r"\d+").replace(r"\{expert\}", r"(?P<expert>\d+)")
    return re.compile(escaped)


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
            if _regex(pattern).fullmatch(local):
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
    for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
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
        ("deepseek_v2", "deepseek_v3", "glm4_moe_lite"),
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
        ("phi3",),
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
        ("modernbert",),
        {"attn.Wqkv": QKV, "attn.Wo": "out_proj", "mlp.Wi": GATE_UP, "mlp.Wo": "fc_out"},
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
    Layout("t5", ("t5", "mt5", "umt5", "longt5", "byt5"), _T5),
    Layout(
        "bart",
        (
            *("bart", "mbart", "whisper", "pegasus", "marian", "m2m_100", "blenderbot"),
            *("blenderbot-small", "plbart", "nllb", "speech_to_text"),
        ),
        _SELF_OUT | _CROSS_OUT | _FC_12,
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
