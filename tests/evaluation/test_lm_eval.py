"""Tasks of lm-evaluation-harness against the harness itself: same model, same local tasks."""

import json
import math

import pytest

from search.evaluation.predictor import make_predictor
from tasks.errors import InputError
from tasks.registry import get_task
from tasks.scoring import summarise

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-eval is an extra: pip install 'laser-search[lm-eval]'"
)

WORDS = ["Paris", "Rome", "film", "fine", "dull", "French", "politician", "Answer", "text", "owned"]


def _rows(count, start=0):
    for n in range(start, start + count):
        options = [WORDS[(n + k) % len(WORDS)] for k in (0, 1, 5)]
        yield {
            "question": f"The {WORDS[n % 7]} number {n} is in",
            "options": options + (["a longer text"] if n % 2 else []),
            "gold": n % 3,
            "text": f"{WORDS[n % 5]} is owned by {WORDS[n % 7]}, {n} times.\n{WORDS[n % 3]}.",
        }


TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "validation_split": "validation",
        "test_split": "test",
        "training_split": "train",
    },
    "blank": {
        "output_type": "multiple_choice",
        "doc_to_text": "gold",
        "doc_to_choice": "{{options|map('replace', '.', '')|list}}",
        "doc_to_target": "is fine",
        "metric_list": [{"metric": "acc"}],
        "test_split": "test",
    },
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{options[0]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        "test_split": "test",
    },
    "wiki": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        "test_split": "test",
    },
    "say": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{options[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "ignore_case": True}],
        "test_split": "test",
    },
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of YAML tasks (JSON is YAML) with their data beside them, and a group of two."""
    folder = tmp_path_factory.mktemp("harness")
    files = {}
    for split, start, count in (("train", 0, 6), ("validation", 6, 5), ("test", 11, 9)):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in _rows(count, start)))
        files[split] = str(path)
    for name, task in TASKS.items():
        data = {split: file for split, file in files.items() if split in task.values()}
        whole = {
            "task": f"our_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": data},
            **task,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(whole))
    both = {"group": "our_both", "task": ["our_choice", "our_last_word"]}
    (folder / "both.yaml").write_text(json.dumps(both))
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def _harness(folder, model, tokenizer, name, **options):
    """The harness's own samples and results."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, device="cpu")
    found = lm_eval.simple_evaluate(
        lm,
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    return found["samples"][name], found["results"][name]


def _ours(folder, model, tokenizer, name, **options):
    task = get_task(f"lm_eval:{name}", folder=str(folder), **options)
    examples = task.load(str(folder))
    predictor = make_predictor("causal", model, tokenizer)
    prepared = predictor.prepare([task.request(e, "causal") for e in examples])
    replies = predictor.answer(prepared)
    outcomes = [task.outcome(e, r) for e, r in zip(examples, replies, strict=True)]
    return examples, replies, outcomes


def _exact(folder, model, tokenizer, name, rounding, **options):
    """The harness's log-likelihoods of the model in float64, in the order of its samples."""
    twin = rounding.exact(model)
    return _all(_harness(folder, twin, tokenizer, name, **options)[0])


def _all(samples):
    """Log-likelihoods of all samples in a row: numbers, or pairs with whether greedy."""
    found = [value for sample in samples for value in _numbers(sample)]
    return [value[0] if isinstance(value, tuple | list) else value for value in found]


def _numbers(sample):
    return [resp[0] for resp in sample["resps"]]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("shots", [0, 2])
def test_choices_have_the_harness_own_likelihoods(build, rounding, folder, family, shots):
    model, tokenizer = build("causal", family, **_room(family))
    samples, results = _harness(folder, model, tokenizer, "our_choice", num_fewshot=shots)
    found = _ours(folder, model, tokenizer, "our_choice", num_fewshot=shots)
    asked = [row for row in zip(*found, strict=True) if row[0].part == "test"]
    assert len(asked) == len(samples) == 9
    for (example, reply, outcome), sample in zip(asked, samples, strict=True):
        assert example.columns["doc"] == sample["doc_id"]
        assert reply.greedy == tuple(greedy for _, greedy in _numbers(sample))
        assert (outcome.score, outcome.measures["acc_norm"]) == (sample["acc"], sample["acc_norm"])
    exact = _exact(folder, model, tokenizer, "our_choice", rounding, num_fewshot=shots)
    rounding.check([ll for _, r, _ in asked for ll in r.log_likelihoods], _all(samples), exact)
    test = [(e, o) for e, _, o in asked]
    scores = summarise([o for _, o in test], [e for e, _ in test])
    assert scores.score == pytest.approx(results["acc,none"])
    assert scores.measures["acc_norm"] == pytest.approx(results["acc_norm,none"])


def _room(family):
    name = "n_positions" if family == "gpt2" else "max_position_embeddings"
    return {name: 256}


def test_choices_that_stand_before_a_common_ending(build, rounding, folder):
    model, tokenizer = build("causal", "gpt2", n_positions=256)
    samples, results = _harness(folder, model, tokenizer, "our_blank")
    examples, replies, outcomes = _ours(folder, model, tokenizer, "our_blank")
    exact = _exact(folder, model, tokenizer, "our_blank", rounding)
    rounding.check([ll for reply in replies for ll in reply.log_likelihoods], _all(samples), exact)
    assert {example.part for example in examples} == {""}
    assert summarise(outcomes, examples).score == pytest.approx(results["acc,none"])


def test_continuations(build, rounding, folder):
    model, tokenizer = build("causal", "gpt2", n_positions=256)
    samples, results = _harness(folder, model, tokenizer, "our_last_word")
    examples, replies, outcomes = _ours(folder, model, tokenizer, "our_last_word")
    exact = _exact(folder, model, tokenizer, "our_last_word", rounding)
    rounding.check([reply.log_likelihoods[0] for reply in replies], _all(samples), exact)
    scores = summarise(outcomes, examples)
    assert scores.score == pytest.approx(results["acc,none"])
    rounding.check(scores.log_loss, math.log(results["perplexity,none"]), -sum(exact) / len(exact))


def test_whole_texts(build, rounding, folder):
    model, tokenizer = build("causal", "gpt2", n_positions=256)
    samples, results = _harness(folder, model, tokenizer, "our_wiki")
    examples, replies, outcomes = _ours(folder, model, tokenizer, "our_wiki")
    exact = _exact(folder, model, tokenizer, "our_wiki", rounding)
    rounding.check([-reply.nats for reply in replies], _all(samples), exact)
    scores = summarise(outcomes, examples)
    words = sum(len(sample["doc"]["text"].split()) for sample in samples)
    theirs = math.log(results["word_perplexity,none"])
    rounding.check(-scores.score, theirs, -sum(exact) / words)


def test_generated_answers(build, folder):
    model, tokenizer = build("causal", "gpt2", n_positions=256)
    samples, results = _harness(folder, model, tokenizer, "our_say")
    examples, replies, outcomes = _ours(folder, model, tokenizer, "our_say")
    assert len(samples) == 9
    assert [r.text for r in replies] == [_numbers(sample)[0] for sample in samples]
    assert summarise(outcomes, examples).score == pytest.approx(results["exact_match,none"])


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("choice", "acc"),
        ("last_word", "acc"),
        ("wiki", "word_perplexity"),
        ("say", "exact_match"),
        ("both", "acc"),
    ],
)
def test_the_metric_is_called_as_the_harness_calls_it(folder, name, metric):
    task = get_task(f"lm_eval:our_{name}", folder=str(folder))
    assert task.metric == "score", "nothing is read before load"
    task.load(str(folder))
    assert task.metric == metric


def test_a_group_is_all_its_tasks_and_limit_counts_in_each_part(build, folder):
    task = get_task("lm_eval:our_both", folder=str(folder), limit=2)
    examples = task.load(str(folder))
    where = [(e.columns["task"], e.part, e.columns["doc"]) for e in examples]
    assert where == [
        *(("our_choice", part, n) for part in ("validation", "test") for n in (0, 1)),
        *(("our_last_word", "", n) for n in (0, 1)),
    ]


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        get_task("lm_eval:our_choice").load(str(tmp_path / "none"))


def test_ties_share_what_they_earn(build, folder):
    """A head of zeros ties all choices, whatever their length; the harness takes the first."""
    model, tokenizer = build("causal", "gpt2", tie_word_embeddings=False)
    kept = model.lm_head.weight.clone()
    model.lm_head.weight.data.zero_()
    try:
        for name in ("our_choice", "our_blank"):
            examples, replies, outcomes = _ours(folder, model, tokenizer, name)
            assert len(examples) >= 9, "every question of the test split"
            for example, reply, outcome in zip(examples, replies, outcomes, strict=True):
                assert reply.flat
                assert outcome.score == pytest.approx(1 / len(example.choices))
                assert outcome.tied == len(example.choices)
                for value in outcome.measures.values():
                    assert value == pytest.approx(1 / len(example.choices))
        vocabulary = model.config.vocab_size
        for name in ("our_last_word", "our_say"):
            outcomes = _ours(folder, model, tokenizer, name)[2]
            assert len(outcomes) == 9
            for outcome in outcomes:
                assert outcome.score <= 1 / vocabulary
                assert outcome.tied == vocabulary
    finally:
        model.lm_head.weight.data.copy_(kept)
