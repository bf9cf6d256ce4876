"""scoring: paper against a plain loop: every prompt, token, verdict and log-probability."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from search.evaluation.predictor import make_predictor
from tasks.base import FillAtOnce
from tasks.errors import InputError
from tasks.paper import PaperScoring, words
from tasks.registry import get_task

_spec = importlib.util.spec_from_file_location(
    "paper_loop", Path(__file__).with_name("paper_loop.py")
)
paper_loop = sys.modules["paper_loop"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(paper_loop)
LONG, ROWS, Loop, build = (getattr(paper_loop, name) for name in ("LONG", "ROWS", "Loop", "build"))

HEADS = {"gptj": "causal", "llama": "causal", "roberta": "masked"}


@pytest.fixture(scope="module")
def small():
    return {family: build(family) for family in HEADS}


@pytest.fixture(scope="module")
def tokenizer_folder(small, tmp_path_factory):
    folders = {}
    for family, (_, tokenizer) in small.items():
        folders[family] = str(tmp_path_factory.mktemp(family))
        tokenizer.save_pretrained(folders[family])
    return folders


def _tokens(prepared):
    """All rows that the model reads, without padding."""
    batches = [*prepared.batches, *prepared.prompts]
    for batch in batches:
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
            yield tuple(ids[mask.bool()].tolist())


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("task", ROWS)
def test_prompts_tokens_and_verdicts_are_the_loops(
    small, tokenizer_folder, tmp_path, rounding, family, task
):
    model, tokenizer = small[family]
    head = HEADS[family]
    plain = Loop(family, model, tokenizer).run(task, ROWS[task])
    expected = Loop(family, rounding.exact(model), tokenizer).run(task, ROWS[task])
    rights = [verdict.right for verdict in expected]
    assert rights == [verdict.right for verdict in plain], "a case that rounding decides"
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[task]))
    name = "counterfact:generated" if (task, family) == ("counterfact", "llama") else task
    scoring = PaperScoring(get_task(name), head, tokenizer_folder[family])
    examples = scoring.load(str(data))
    assert len(examples) == len(expected)
    requests = [scoring.request(example, head) for example in examples]
    predictor = make_predictor(head, model, tokenizer)
    prepared = predictor.prepare(requests)
    for request, verdict in zip(requests, expected, strict=True):
        if family != "roberta":
            assert request.prompt == verdict.prompt
        elif LONG not in request.prompt:
            assert request.prompt.replace(" [MASK]", " <mask>") == verdict.prompt
    ours = set(_tokens(prepared))
    theirs = {tuple(row) for verdict in expected for row in verdict.tokens}
    if head == "masked":
        assert ours == theirs
    else:  # rows that begin another run once
        assert all(any(row[: len(own)] == own for row in ours) for own in theirs)
        assert ours <= theirs
    replies = predictor.answer(prepared)
    outcomes = [scoring.outcome(e, r) for e, r in zip(examples, replies, strict=True)]
    assert [bool(o.score) for o in outcomes] == rights
    rounding.check(
        [o.log_probability for o in outcomes],
        *([verdict.log_probability for verdict in verdicts] for verdicts in (plain, expected)),
    )
    for outcome, verdict in zip(outcomes, expected, strict=True):
        if verdict.f1 is not None:
            assert outcome.measures["f1"] == pytest.approx(verdict.f1)


def test_the_loop_sees_both_verdicts(small):
    """A comparison in which all is wrong, or nothing, would show little."""
    found = [
        verdict.right
        for family, (model, tokenizer) in small.items()
        for task, rows in ROWS.items()
        for verdict in Loop(family, model, tokenizer).run(task, rows)
    ]
    assert 0.25 < sum(found) / len(found) < 0.75
    assert len(found) > 50


def test_a_masked_answer_may_be_asked_with_and_without_the_answer_before_it(small):
    """Masking all at once is another question than filling from left to right."""
    model, tokenizer = small["roberta"]
    predictor = make_predictor("masked", model, tokenizer)
    asked = FillAtOnce("He says so. Relation:", (" entailment", " non-entailment"))
    (reply,) = predictor.answer(predictor.prepare([asked]))
    assert reply.lengths_tokens[1] > 1
    task = get_task("bigbench:epistemic-reasoning")
    example = next(iter(_examples(task)))
    (other,) = predictor.answer(predictor.prepare([task.request(example, "masked")]))
    assert abs(other.log_likelihoods[1] - reply.log_likelihoods[1]) > 1e-3


def _examples(task):
    from tasks.base import Example

    yield Example("e", "g", "He says so. Relation:", "entailment",
                  ("entailment", "non-entailment"), 0)  # fmt: skip


def test_long_questions_lose_their_left_end_and_long_answers_are_refused(small):
    model, tokenizer = small["roberta"]
    predictor = make_predictor("masked", model, tokenizer)
    filler = "She writes verse. " * 120
    prepared = predictor.prepare([FillAtOnce(filler, (" Paris",), 5)])
    assert prepared.truncated == 1
    read = list(_tokens(prepared))
    assert read, "the question is read, cut"
    assert all(len(row) <= predictor.limit_tokens for row in read)
    with pytest.raises(InputError, match="does not fit"):
        predictor.prepare([FillAtOnce("x", (" Paris" * 400,), 5)])
    with pytest.raises(InputError, match="causal head cannot answer FillAtOnce"):
        make_predictor("causal", *small["gptj"]).prepare([FillAtOnce("x", (" Paris",))])


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    data = tmp_path / "q.jsonl"
    data.write_text(json.dumps(ROWS["hotpotqa"][0]))
    with pytest.raises(InputError, match="give a local copy as the task's tokenizer"):
        PaperScoring(get_task("hotpotqa"), "causal", str(tmp_path / "none")).load(str(data))


WORDS = {
    "a well-known man": ["a", "well-known", "man"],
    "the answer is u.s. army.": ["the", "answer", "is", "u.s.", "army", "."],
    "1,000 men, and 2: x": ["1,000", "men", ",", "and", "2", ":", "x"],
    "don't say darrieux's": ["do", "n't", "say", "darrieux", "'s"],
    'the (old) "house" --so...': ["the", "(", "old", ")", "``", "house", "''", "--", "so", "..."],
    "a/b, it's 5:30, isn't it?": ["a/b", ",", "it", "'s", "5:30", ",", "is", "n't", "it", "?"],
}
"""What the tokenizer that LASER's code uses (NLTK's) gives, noted by hand."""


@pytest.mark.parametrize("text", WORDS)
def test_words_are_those_of_the_penn_treebank(text):
    assert words(text) == WORDS[text]
