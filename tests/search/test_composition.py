from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.registry import KINDS
from search.cuts.level import Level
from search.cuts.refs import GROUPS, MatrixRef
from search.cuts.rules import RankRule
from tasks.errors import InputError

refs = st.builds(
    MatrixRef,
    layer=st.integers(0, 200),
    type=st.sampled_from(GROUPS["all"]),
    stack=st.sampled_from(["", "encoder", "decoder"]),
    cross=st.booleans(),
    expert=st.none() | st.integers(0, 300),
)
rho = st.builds(RankRule, name=st.just("rho"), value=st.floats(0, 1))
count = st.builds(RankRule, name=st.just("rank"), value=st.integers(0, 5000))


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    kind = draw(st.sampled_from(list(KINDS)))
    if kind == "zero":
        return Intervention(draw(refs), Level(RankRule("rho", 0.0), kind))
    rule = draw(rho if kind.startswith("prune") else rho | count)
    return Intervention(draw(refs), Level(rule, kind))


lists = st.lists(interventions(), max_size=6, unique_by=lambda i: i.matrix)


@given(refs)
def test_addresses_survive_their_text(ref: MatrixRef) -> None:
    assert MatrixRef.parse(str(ref)) == ref


@given(lists, st.randoms())
def test_order_of_writing_does_not_matter(items, random) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    first, second = Composition(tuple(items)), Composition(tuple(shuffled))
    assert first == second
    assert first.canonical == second.canonical
    assert first.digest == second.digest


@given(lists)
def test_json_round_trip(items) -> None:
    composition = Composition(tuple(items))
    assert Composition.from_dict(json.loads(composition.canonical)) == composition
    assert json.loads(composition.canonical)["schema"] == 1


@given(lists)
def test_text_round_trip_is_exact(items) -> None:
    composition = Composition(tuple(items))
    assert Composition.parse(str(i) for i in composition.interventions) == composition


@given(lists, lists)
def test_different_compositions_have_different_digests(a, b) -> None:
    first, second = Composition(tuple(a)), Composition(tuple(b))
    assert (first.digest == second.digest) == (first == second)


def test_digest_is_stable_across_versions() -> None:
    # Studies and exported models carry this digest: it may only change with the schema number.
    composition = Composition.parse(["2.fc_in=0.1", "0.fc_out=0.05"])
    assert composition.canonical == (
        '{"interventions":['
        '{"kind":"keep-top","matrix":"0.fc_out","rule":"rho","value":0.05},'
        '{"kind":"keep-top","matrix":"2.fc_in","rule":"rho","value":0.1}],"schema":1}'
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("2.fc_in", "MATRIX=RHO"),
        ("fc_in=0.1", "LAYER.TYPE"),
        ("2.fc_in=1.5", r"outside \[0, 1\]"),
        ("2.fc_in=nan", r"outside \[0, 1\]"),
        ("2.fc_in=x", "not a number"),
        ("2.fc_in=ranks:3", "did you mean 'rank'"),
        ("2.fc_in=keep-bottum/0.1", "did you mean 'keep-bottom'"),
        ("2.fc_in=rank:2.5", "whole number"),
    ],
)
def test_bad_interventions_are_one_sentence(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Intervention.parse(text)


def test_a_matrix_is_cut_once() -> None:
    with pytest.raises(InputError, match="cut twice"):
        Composition.parse(["2.fc_in=0.1", "2.fc_in=0.2"])


def test_effect_sees_through_spelling() -> None:
    ranks = {MatrixRef(2, "fc_in"): 64, MatrixRef(0, "fc_out"): 64}

    def effect(*texts: str) -> str:
        return Composition.parse(texts).effect(ranks)

    assert effect("2.fc_in=0.01") == effect("2.fc_in=0.005") == effect("2.fc_in=rank:1")
    assert effect("2.fc_in=1") == effect() == ""
    assert effect("2.fc_in=0") == effect("2.fc_in=zero") != effect("2.fc_in=0.01")
    assert effect("2.fc_in=0.1") != effect("2.fc_in=keep-bottom/0.1")
    assert effect("0.fc_out=0.2", "2.fc_in=0.1") == effect("2.fc_in=0.1", "0.fc_out=0.2")
