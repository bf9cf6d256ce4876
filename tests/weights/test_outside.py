"""Matrices in no block: listed, addressed, cut, undone and exported; never there unasked."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.reuse.blocks import Blocks
from search.sections import SpaceConfig
from search.space import Space
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import all_matrices, find_matrices, find_outside
from search.weights.selection import read_composition
from tasks.errors import InputError


def _bert(**sizes):
    return BertForSequenceClassification(BertConfig(num_labels=2, **sizes))


@pytest.fixture
def small():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _bert(**sizes, intermediate_size=32, vocab_size=50).eval()


@pytest.mark.parametrize(
    "text", ["classifier", "pooler.dense", "cls.predictions.transform.dense", "score", "head.0"]
)
def test_an_address_without_a_layer_reads_back(text):
    ref = MatrixRef.parse(text)
    assert ref.is_outside and str(ref) == text and MatrixRef.parse(str(ref)) == ref
    assert MatrixRef(3, "fc_in") < ref, "after all blocks"
    assert ref.row == "outside"
    assert Composition.from_dict(Composition.parse([f"{text}=0.1"]).to_dict()) is not None


@pytest.mark.parametrize("text", ["fc_in", "mlp", "all", "*.fc_in", "27", "27.", "a b", ""])
def test_what_could_be_a_mistake_is_no_address(text):
    with pytest.raises(InputError, match="not a matrix address"):
        MatrixRef.parse(text)


def test_a_module_that_looks_like_a_layer_is_told_apart():
    ref = MatrixRef.outside("encoder.3.dense")
    assert str(ref) == "module.encoder.3.dense" and MatrixRef.parse(str(ref)) == ref


def test_poolers_and_heads_are_found_and_never_searched_unasked(small):
    found = {str(m.ref): m for m in find_outside(small)}
    assert {name: m.shape for name, m in found.items()} == {
        "pooler.dense": (16, 16),
        "classifier": (2, 16),
    }
    assert found["pooler.dense"].module == "bert.pooler.dense"
    assert not any(m.searchable or m.block for m in found.values())
    matrices = all_matrices(small)
    default = Space.build(SpaceConfig(max_interventions=1), matrices)
    assert not any(ref.is_outside for ref in default.matrices)
    asked = SpaceConfig(matrices=["fc_in", "pooler.dense"], max_interventions=2, layers=[1])
    assert list(map(str, Space.build(asked, matrices).matrices)) == ["1.fc_in", "pooler.dense"]
    only = SpaceConfig(matrices=["classifier"], max_interventions=1)
    assert list(map(str, Space.build(only, matrices).matrices)) == ["classifier"]


def test_a_head_that_is_the_embedding_is_listed_and_refused():
    with torch.device("meta"):
        tied = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50))
        own = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=50,
                intermediate_size=32, tie_word_embeddings=False,
            )
        )  # fmt: skip
        pair = T5ForConditionalGeneration(
            T5Config(d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8, vocab_size=50)
        )
    (head,) = find_outside(tied)
    assert str(head.ref) == "lm_head" and head.shared == "also used as lm_head.weight"
    assert head.parameter in dict(tied.named_parameters()), "its bytes are to be found"
    with pytest.raises(InputError, match="'lm_head', which cannot be cut alone"):
        Space.build(SpaceConfig(matrices=["lm_head"], max_interventions=1), all_matrices(tied))
    assert [(str(m.ref), m.shared) for m in find_outside(own)] == [("lm_head", "")]
    assert [str(m.ref) for m in find_outside(pair)] == ["lm_head"]


def test_a_cut_outside_the_blocks_is_exact_undone_and_runs_whole(small, tmp_path):
    before = {name: p.detach().clone() for name, p in small.named_parameters()}
    matrices = all_matrices(small)
    editor = Editor(small, matrices, FactorCache(tmp_path))
    composition = read_composition(["pooler.dense=rank:3", "1.fc_in=rank:2"], matrices)
    with editor.applied(composition):
        weight = small.bert.pooler.dense.weight
        left, values, right = torch.linalg.svd(before["bert.pooler.dense.weight"])
        best = (left[:, :3] * values[:3]) @ right[:3]
        assert torch.allclose(weight, best, atol=1e-5)
        changed = {name for name, p in small.named_parameters() if not torch.equal(p, before[name])}
        assert changed == {
            "bert.pooler.dense.weight",
            "bert.encoder.layer.1.intermediate.dense.weight",
        }
    for name, parameter in small.named_parameters():
        assert torch.equal(parameter, before[name]), name
    blocks = Blocks.of(small, matrices)
    assert blocks.first_edited(composition) == 0, "no pass begins behind what it edits"
    assert blocks.first_edited(read_composition(["1.fc_in=rank:2"], matrices)) == 1


@pytest.mark.parametrize(("rank", "published"), [(1, 24_125_956), (128, 45_389_574)])
def test_every_linear_layer_of_bert_base_gives_the_counts_of_the_post(rank, published):
    """At rank 128 the classifier, of two rows, is clamped to rank 2."""
    with torch.device("meta"):
        model = _bert()
    matrices = all_matrices(model)
    texts = [f"{name}=rank:{rank}" for name in ("*.all", "pooler.dense", "classifier")]
    composition = read_composition(texts, matrices)
    cut = {i.matrix for i in composition.interventions}
    linear = [m for m in model.modules() if type(m) is torch.nn.Linear]
    assert len(cut) == len(linear) == 12 * 6 + 2
    count = sum(parameter.numel() for parameter in model.parameters())
    for matrix in matrices:
        if matrix.ref in cut:
            out, into = matrix.shape
            count += min(rank, matrix.max_rank) * (out + into) - out * into
    assert count == published


def test_matrices_in_blocks_are_what_they_were(small):
    assert [m.ref for m in all_matrices(small) if m.block] == [m.ref for m in find_matrices(small)]
