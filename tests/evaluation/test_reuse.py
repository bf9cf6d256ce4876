"""The evaluator with reuse and without: the same outcomes, to the bit, on every kind of model."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig

import search.demo
from search.cuts.composition import Composition
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.evaluation.predictor import make_predictor
from search.model import ModelSource
from search.reuse.activations import Room, SharedScratch
from search.reuse.forward import ForwardPasses
from search.study.jobs import Job
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.base import Choose, Classify, Complete
from tasks.errors import InputError
from tasks.registry import get_task

HERE = Path(search.demo.__file__).parent


def job(text):
    return Job(text, Composition.parse(text.split()), text, "validation")


@pytest.fixture
def demo(tmp_path):
    task = get_task("jsonl")
    examples = task.load(str(HERE / "questions.jsonl"))[:40]

    def make(room=None, chunks=1):
        source = ModelSource(str(HERE / "model"))
        questions = Questions(task, {"validation": examples[:30], "test": examples[30:]}, chunks)
        return open_evaluator(source, questions, tmp_path / "factors", Hosting(room=room))

    return make


def test_a_study_s_trials_are_the_same_with_reuse_and_without(demo):
    with_reuse, without = demo(), demo(Room(0))
    for text in ("0.fc_in=rho:0.1", "2.fc_out=rho:0.05", "", "1.fc_in=zero 2.fc_out=rho:0.1"):
        ours, plain = with_reuse.evaluate(job(text)), without.evaluate(job(text))
        assert ours.outcomes == plain.outcomes
    assert not with_reuse.passes.prefix.refused
    assert with_reuse.passes.prefix.boundaries == (1, 2)
    assert without.passes.prefix.boundaries == ()


def test_generated_answers_are_the_same_with_reuse_and_prompts_are_recorded_once(
    tmp_path, count_blocks
):
    rows = [json.loads(line) for line in (HERE / "questions.jsonl").read_text().splitlines()]
    data = tmp_path / "hotpot.json"
    data.write_text(json.dumps([{"question": r["prompt"], "answer": r["answer"]} for r in rows]))
    task = get_task("hotpotqa")
    questions = Questions(task, {"validation": task.load(str(data))[:30]}, 2)
    source, factors = ModelSource(str(HERE / "model")), tmp_path / "factors"
    with_reuse, without = (
        open_evaluator(source, questions, factors, Hosting(room=room)) for room in (None, Room(0))
    )
    ran = count_blocks(with_reuse.passes.prefix)
    seen = []
    for text in ("0.fc_in=rho:0.1", "2.fc_out=rho:0.05", "2.fc_in=rho:0.05"):
        ran.clear()
        ours, plain = with_reuse.evaluate(job(text)), without.evaluate(job(text))
        assert ours.outcomes == plain.outcomes
        seen.append([ran.count(block) for block in range(3)])
    assert not with_reuse.passes.prompts.refused
    assert with_reuse.passes.prompts.boundaries == (1, 2)
    prompts = sum(len(one.prompts) for _, one in with_reuse._prepared["validation"])
    scored = sum(len(one.batches) for _, one in with_reuse._prepared["validation"])
    assert prompts > 1
    for counts in seen[1:]:
        further = counts[2] - prompts - scored
        assert counts == [further, further, counts[2]], "what follows runs through all blocks"


def test_a_later_job_rebuilds_what_differs_and_close_restores(demo):
    evaluator = demo()
    before = {n: p.detach().clone() for n, p in evaluator.editor.model.named_parameters()}
    evaluator.evaluate(job("1.fc_in=rho:0.1 2.fc_out=rho:0.05"))
    written = []
    original = evaluator.editor._edit
    evaluator.editor._edit = lambda one: (written.append(str(one.matrix)), original(one))
    evaluator.evaluate(job("1.fc_in=rho:0.1 2.fc_out=rho:0.1"))
    assert written == ["2.fc_out"]
    evaluator.close()
    for name, parameter in evaluator.editor.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_test_is_asked_of_the_whole_model(demo):
    evaluator = demo()
    evaluator.evaluate(job("2.fc_out=rho:0.1"))
    records = len(evaluator.passes.prefix._records)
    evaluator.evaluate(Job("t", Composition(), "", "test"))
    assert evaluator.passes.prefix.start == 0
    assert len(evaluator.passes.prefix._records) == records


SIZES = dict(
    vocab_size=420, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=56,
)  # fmt: skip
T5 = dict(
    vocab_size=420, d_model=32, num_layers=3, num_heads=4, d_ff=56, d_kv=8,
    decoder_start_token_id=0,
)  # fmt: skip
KINDS = {
    "BERT classifier": ("AutoModelForSequenceClassification", "bert", SIZES, "wordpiece"),
    "GPT-2 classifier": (
        "AutoModelForSequenceClassification",
        "gpt2",
        dict(vocab_size=420, n_embd=32, n_layer=4, n_head=4, pad_token_id=0),
        "byte-level",
    ),
    "T5": ("AutoModelForSeq2SeqLM", "t5", T5, "unigram with end"),
    "BERT": ("AutoModelForMaskedLM", "bert", SIZES, "wordpiece"),
}
HEADS = {
    "AutoModelForSequenceClassification": "classifier",
    "AutoModelForSeq2SeqLM": "seq2seq",
    "AutoModelForMaskedLM": "masked",
}
TEXTS = (
    "a fine film", "dull", "The profession of Arun Nehru is politician", "Paris is in France.",
    "a longer text of many words, foo bar",
)  # fmt: skip
REQUESTS = {
    "classifier": [Classify(text) for text in TEXTS],
    "seq2seq": [Choose(text, ("yes", "no", "foo bar")) for text in TEXTS]
    + [Complete(text, "Rome") for text in TEXTS],
    "masked": [Complete(f"{text} is [MASK] .", "Rome") for text in TEXTS],
}


def test_the_folder_of_activations_goes_with_the_bench_and_not_with_a_failed_job(demo, tmp_path):
    scratch = SharedScratch("study", str(tmp_path))
    evaluator = demo(Room(0, 0, 10**9, scratch))
    evaluator.evaluate(job("2.fc_out=rho:0.1"))
    assert list(scratch.path.iterdir()), "activations were to be kept in files"
    with pytest.raises(InputError):
        evaluator.evaluate(job("7.fc_out=rho:0.1"))
    assert evaluator.evaluate(job("2.fc_out=rho:0.1")).outcomes
    assert list(scratch.path.iterdir()), "the next job reads them"
    evaluator.close()
    assert not scratch.path.exists(), "its lock was to be given up, and nobody else has one"


def with_and_without_reuse(kind, tokenizers, folder):
    """A model's matrices and editor, two predictors of it, and the requests each has prepared."""
    auto, family, settings, tokenizer = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    model = getattr(transformers, auto).from_config(config).eval()
    matrices = find_matrices(model)
    editor = Editor(model, matrices, FactorCache(folder))
    pair = [
        make_predictor(
            HEADS[auto],
            model,
            tokenizers[tokenizer],
            passes=ForwardPasses.of(model, matrices, room=room),
        )
        for room in (None, Room(0))
    ]
    prepared = [predictor.prepare(REQUESTS[HEADS[auto]]) for predictor in pair]
    return matrices, editor, pair, prepared


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_answers_the_same_with_reuse(kind, tokenizers, tmp_path):
    matrices, editor, pair, prepared = with_and_without_reuse(kind, tokenizers, tmp_path)
    pair[0].record(prepared[0])
    passes = [getattr(p, "scorer", p).passes for p in pair]
    prefix = passes[0].prefix
    answers = []
    for matrix in (m for m in matrices if m.ref.type == "fc_out"):
        composition = Composition.parse([f"{matrix.ref}=zero"])
        with editor.applied(composition):
            prefix.start = prefix.blocks.first_edited(composition)
            assert prefix.start == prefix.blocks.place_of[matrix.ref]
            ours, plain = (p.answer(q) for p, q in zip(pair, prepared, strict=True))
            assert ours == plain
        answers.append(plain)
    assert len(answers) == len(prefix.blocks)
    assert all(a != b for a, b in pairwise(answers))
    assert prefix.boundaries == tuple(range(1, len(prefix.blocks)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_gives_the_same_from_a_kept_boundary(kind, tokenizers, count_blocks, tmp_path):
    matrices, editor, (kept, whole), asked = with_and_without_reuse(kind, tokenizers, tmp_path)
    prefix = getattr(kept, "scorer", kept).passes.prefix
    last = max(
        (m for m in matrices if m.ref.type == "fc_out"),
        key=lambda m: prefix.blocks.place_of[m.ref],
    )
    prefix.ahead = (prefix.blocks.place_of[last.ref],)
    assert kept.answer(asked[0]) == whole.answer(asked[1])
    assert prefix._records and not prefix.refused
    prefix.ahead = ()
    composition = Composition.parse([f"{last.ref}=zero"])
    with editor.applied(composition):
        prefix.start = prefix.blocks.first_edited(composition)
        ran = count_blocks(prefix)
        found = kept.answer(asked[0])
        assert ran == [*range(prefix.start, len(prefix.blocks))] * len(asked[0].batches)
        assert found == whole.answer(asked[1])


def test_a_classifier_computes_one_row_of_the_last_block(tokenizers, rounding):
    for kind, end in (("BERT classifier", False), ("GPT-2 classifier", True)):
        auto, family, settings, tokenizer = KINDS[kind]
        model = getattr(transformers, auto).from_config(AutoConfig.for_model(family, **settings))
        passes = ForwardPasses.of(model, find_matrices(model))
        predictor = make_predictor("classifier", model, tokenizers[tokenizer], passes=passes)
        prepared = predictor.prepare(REQUESTS["classifier"])
        assert predictor.ends_early
        assert predictor._reads_end is end
        plain = make_predictor("classifier", model, tokenizers[tokenizer])
        twin = make_predictor("classifier", rounding.exact(model), tokenizers[tokenizer])
        others = [one.answer(one.prepare(REQUESTS["classifier"])) for one in (plain, twin)]
        rounding.check(
            *(
                [value for reply in some for value in reply.log_probabilities]
                for some in (predictor.answer(prepared), *others)
            )
        )
