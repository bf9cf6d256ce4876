"""Structural fallback: types for the linear maps of a block whose family is not in the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from search.weights.layouts import GATE_UP
from search.weights.roles import Role

_QUERY = {"q_proj", "query", "q", "q_lin", "wq", "to_q", "query_proj", "linear_q", "q_attn"}
_KEY = {"k_proj", "key", "k", "k_lin", "wk", "to_k", "key_proj", "linear_k"}
_VALUE = {"v_proj", "value", "v", "v_lin", "wv", "to_v", "value_proj", "linear_v"}
_OUT = {"o_proj", "out_proj", "out_lin", "wo", "o", "to_out", "c_proj", "dense", "proj"}
_GATE = {"gate_proj", "wi_0", "w_gate", "gate", "w1"}
_UP = {"up_proj", "wi_1", "w_up", "up", "w3"}
_IN = {"fc1", "c_fc", "lin1", "fc_in", "dense_h_to_4h", "linear1", "linear_1", "wi", "layer_1"}
_DOWN = {"down_proj", "fc2", "c_proj", "lin2", "fc_out", "dense_4h_to_h", "linear2", "wo"}
_DOWN |= {"linear_2", "layer_2", "w_down", "down", "w2"}
_CROSS = ("cross", "encdec", "enc_dec", "encoder_att", "enc_att")
_ROUTERS = {"router", "gate", "shared_expert_gate"}


@dataclass(frozen=True)
class Guess:
    """A role, and what in the block's structure suggests it."""

    role: Role
    reason: str


def guess(shapes: Mapping[str, tuple[int, int]]) -> dict[str, Guess]:
    """Roles for the linear maps of one block, by their names there and shapes (out, in).

    A map is attention's when its siblings include a query, a key and a value, or when it is the
    output of such a module. In the rest, a module with one map that widens and one that narrows
    again is a feed-forward network; a third is told from the first by its name alone. Fused weights
    are left alone, as the order of their rows cannot be seen, save transformers' stacked experts.
    Whatever stays ambiguous has no entry.
    """
    answers: dict[str, Guess] = {}
    attention = _attention(shapes, answers)
    families: dict[str, list[str]] = {}
    for name in shapes:
        if name not in answers and not any(name.startswith(f"{path}.") for path in attention):
            families.setdefault(name.rpartition(".")[0], []).append(name)
    _stacked(shapes, answers)
    for path, names in families.items():
        _feed_forward(path, [name for name in names if name not in answers], shapes, answers)
    _bert_like(shapes, answers)
    return answers


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _attention(shapes: Mapping[str, tuple[int, int]], answers: dict[str, Guess]) -> set[str]:
    """Fill in q, k, v and the output of each attention; return the attention modules' paths."""
    paths: dict[str, dict[str, str]] = {}
    for name in shapes:
        for kind, leaves in (("q_proj", _QUERY), ("k_proj", _KEY), ("v_proj", _VALUE)):
            if _leaf(name) in leaves:
                paths.setdefault(name.rpartition(".")[0], {})[kind] = name
    found: set[str] = set()
    for path, kinds in paths.items():
        if len(kinds) != 3 or len({shapes[name][1] for name in kinds.values()}) > 2:
            continue
        cross = any(word in path.lower() for word in _CROSS)
        for kind, name in kinds.items():
            answers[name] = Guess(Role((kind,), cross=cross), "beside a query, a key and a value")
        # BERT keeps the output beside the module that holds the query: attention.output.dense.
        top = path.rpartition(".")[0] if _leaf(path) in ("self", "attention") else ""
        around = (path, top) if top else (path,)
        found.update(around)
        outs = [
            name
            for name in shapes
            if name not in answers
            and _leaf(name) in _OUT
            and any(name.startswith(f"{place}.") for place in around)
            and shapes[name][0] == shapes[kinds["q_proj"]][1]
        ]
        if len(outs) == 1:
            answers[outs[0]] = Guess(Role(("out_proj",), cross=cross), "the output of an attention")
    return found


def _stacked(shapes: Mapping[str, tuple[int, int]], answers: dict[str, Guess]) -> None:
    """Fill in transformers' stacks of experts, and the router beside them."""
    for name, (rows, columns) in shapes.items():
        path, _, leaf = name.rpartition(".")
        if leaf in _ROUTERS and any(other.startswith(f"{path}.experts.") for other in shapes):
            answers[name] = Guess(Role(note="router of a mixture of experts"), "beside experts")
        down = f"{path}.down_proj"
        if path.rpartition(".")[2] != "experts" or leaf != "gate_up_proj" or down not in shapes:
            continue
        hidden, inner = shapes[down]
        # Stored [in, out], both shapes read the other way round.
        transposed = (rows, columns) == (inner, 2 * hidden)
        if transposed or (rows, columns) == (2 * inner, hidden):
            for stack, kinds in ((name, GATE_UP), (down, "fc_out")):
                role = Role(tuple(kinds.split()), transposed=transposed)
                answers[stack] = Guess(role, "a stack of experts")


def _feed_forward(
    path: str, names: list[str], shapes: Mapping[str, tuple[int, int]], answers: dict[str, Guess]
) -> None:
    """Fill in the feed-forward maps among the siblings `names`, if shapes and names agree."""
    narrowing = [n for n in names if _leaf(n) in _DOWN and "attn" not in path.lower()]
    gates = [n for n in names if _leaf(n) in _GATE]
    ups = [n for n in names if _leaf(n) in _UP]
    ins = [n for n in names if _leaf(n) in _IN]
    if len(narrowing) != 1:
        return
    hidden, inner = shapes[narrowing[0]]
    wide = (inner, hidden)
    kinds: list[tuple[str, str]] = []
    if len(gates) == 1 and len(ups) == 1 and not ins:
        kinds = [(gates[0], "fc_in"), (ups[0], "fc_up")]
    elif len(ins) + len(ups) + len(gates) == 1:
        kinds = [((ins + ups + gates)[0], "fc_in")]
    if not kinds or any(shapes[name] != wide for name, _ in kinds):
        return
    expert = re.fullmatch(r"(.*\bexperts)\.\d+", path)
    for name, kind in [*kinds, (narrowing[0], "fc_out")]:
        pattern = f"{expert[1]}.{{expert}}.{name.rpartition('.')[2]}" if expert else ""
        role = Role((kind,), pattern=pattern)
        answers[name] = Guess(role, "a map that widens and one that narrows again")


def _bert_like(shapes: Mapping[str, tuple[int, int]], answers: dict[str, Guess]) -> None:
    """BERT's feed-forward network is spread over two modules of the block."""
    wide, narrow = "intermediate.dense", "output.dense"
    if not {wide, narrow} <= set(shapes) or {wide, narrow} & set(answers):
        return
    if shapes[wide] == shapes[narrow][::-1]:
        for name, kind in ((wide, "fc_in"), (narrow, "fc_out")):
            reason = "a map that widens and one that narrows again"
            answers[name] = Guess(Role((kind,)), reason)
