"""Training after the cut: on each head, both methods, merged and apart."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from search.evaluation.encoding import Encoder
from search.evaluation.predictor import make_predictor
from search.export.factored import load_factored
from search.export.known_study import study_of_cut
from search.export.training import Collator, training_rows
from search.model import ModelSource
from search.sections import TaskConfig
from tasks.base import Complete
from tasks.errors import InputError
from tasks.jsonl import Jsonl

WORDS = [f"w{i}" for i in range(43)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentences(start, stop):
    """Texts of two words whose label is whether the first word's number is odd."""
    pairs = [(i, j) for i in range(40) for j in range(40)]
    return [
        {"text": f"{WORDS[i]} {WORDS[j]}", "label": i % 2, "group": f"{i} {j}"}
        for i, j in [pairs[(37 * n) % 1600] for n in range(start, stop)]
    ]


@pytest.fixture
def classifier(finish, tmp_path):
    sizes = dict(vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    config = AutoConfig.for_model("bert", **sizes, intermediate_size=56, num_labels=2)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    data = write(tmp_path / "asked.jsonl", sentences(0, 60))
    return finish(tmp_path, model, ["0.fc_in=rank:6 1.fc_in=rank:6 1.q_proj=rank:4"], data=data)


@pytest.mark.parametrize("method", ["lora", "factors"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_classifier_learns_what_the_cut_cost(
    classifier, run, tmp_path, method, apart, monkeypatch
):
    asked = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", asked.append)
    train = write(tmp_path / "train.jsonl", sentences(0, 300))
    out = tmp_path / "healed"
    words = ["heal", classifier.folder, "--trial", 0, "--train", train, "--steps", 60, "--out", out]
    words += ["--method", method, "--learning-rate", "0.01", *(["--apart"] if apart else [])]
    code, said, _ = run(*words)
    assert code == 0 and "30 of 30" in said
    assert not asked, "the hub was asked for the base model that lies beside the adapter"
    found = json.loads((out / "healing.json").read_text())
    assert found["left_out"] == 60 and found["examples"] == 240
    assert found["scores"]["healed"]["test"] > found["scores"]["cut"]["test"] + 0.1
    size = found["parameters"]
    kept = 2 * (6 * 88) + 4 * 64 - 2 * 32 * 56 - 32 * 32
    expected = kept if (method, apart) == ("factors", True) else None
    if expected is not None:
        assert size["healed"] - size["base"] == expected
        assert size["trained"] == 2 * (6 * 88 + 56) + 4 * 64 + 32
        assert load_factored(out).config.laser_factored
    if not apart:
        assert size["healed"] == size["base"]
        model = AutoModelForSequenceClassification.from_pretrained(out)
        base = load_file(next(classifier.model.glob("*.safetensors")))
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in base.items()
        }
    if apart and method == "lora":
        assert (out / "adapter" / "adapter_config.json").exists()
        assert (out / "model" / "config.json").exists()
        adapter = json.loads((out / "adapter" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == "model"
    for file in (*out.glob("*.*"), *(out / "adapter").glob("*")):
        assert str(classifier.folder.parent).encode() not in file.read_bytes(), file.name
    assert "after training" in (out / "README.md").read_text()


def test_a_known_cut_is_healed_without_a_study(classifier, run, tmp_path):
    """What `cut` wrote says what is cut; a task is named whose questions are asked."""
    cut, out = tmp_path / "cut", tmp_path / "healed"
    named = ("--intervention", "*.fc_in=rank:6", "--intervention", "1.q_proj=rank:4")
    assert run("cut", classifier.model, *named, "--out", cut, "--no-verify")[0] == 0
    train = write(tmp_path / "train.jsonl", sentences(0, 300))
    words = ["heal", classifier.model, "--train", train, "--steps", 60, "--out", out]
    words += ["--intervention", cut, "--learning-rate", "0.01", "--json"]
    code, _, error = run(*words)
    assert code == 2 and "--task and --data" in error
    code, said, _ = run(*words, "--task", "jsonl", "--data", tmp_path / "asked.jsonl")
    assert code == 0
    found = json.loads(said)
    assert found["composition"] == "0.fc_in=rank:6 1.q_proj=rank:4 1.fc_in=rank:6"
    assert found["verdict"]["different"] == 0
    assert found["left_out"] == 60
    assert found["scores"]["healed"]["test"] > found["scores"]["cut"]["test"] + 0.1
    assert AutoModelForSequenceClassification.from_pretrained(out)


def test_training_data_that_the_study_asks_is_refused(classifier, run, tmp_path):
    train = write(tmp_path / "train.jsonl", sentences(0, 60))
    words = ("--trial", 0, "--train", train, "--steps", 1, "--out", tmp_path / "healed")
    code, _, error = run("heal", classifier.folder, *words)
    assert code == 2 and "set aside for training" in error
    assert not (tmp_path / "healed").exists()


QUESTIONS = [
    {"prompt": "w1 w2", "answer": "w3"},
    {"prompt": "w4", "answer": "w5 w6"},
    {"prompt": "w7", "answer": "w8", "choices": ["w9", "w8"]},
]


def rows_of(study, head, tmp_path):
    data = write(tmp_path / "q.jsonl", QUESTIONS)
    source = study.record.config.model.source()
    examples = Jsonl().load(str(data))
    model, tokenizer = source.load(), source.tokenizer()
    return training_rows(model, tokenizer, Jsonl(), examples, head), model, tokenizer


@pytest.mark.parametrize(
    ("family", "head"), [("GPT-J", "causal"), ("BERT", "masked"), ("T5", "seq2seq")]
)
def test_only_the_right_answer_is_learnt(families, finish, tmp_path, family, head, rounding):
    """The words whose loss counts are the answer's, and the model's own loss takes the batch."""
    study = finish(tmp_path, families.build(family), [])
    rows, model, tokenizer = rows_of(study, head, tmp_path)
    ends = list(Encoder(tokenizer).suffix)
    for row, question in zip(rows, QUESTIONS, strict=True):
        counted = [token for token in row["labels"] if token != -100]
        assert tokenizer.decode(counted[: len(counted) - len(ends)]) == question["answer"]
        read = tokenizer.decode(row["input_ids"])
        assert question["prompt"] in read and (question["answer"] in read) == (head == "causal")
    batch = Collator(0)(rows)
    plain = model(**batch).loss
    twin = rounding.exact(model)
    logits = twin(**{k: v for k, v in batch.items() if k != "labels"}).logits
    shift = head == "causal"
    labels = batch["labels"][:, 1:] if shift else batch["labels"]
    picked = logits[:, :-1] if shift else logits
    exact = torch.nn.functional.cross_entropy(
        picked.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100
    )
    rounding.check(twin(**batch).loss, plain, exact)
    # The same answers as the study's own scoring: the loss is their mean per token.
    requests = [Complete(q["prompt"], f" {q['answer']}") for q in QUESTIONS]
    if head != "masked":  # that fills several masks one after the other
        predictor = make_predictor(head, model, tokenizer)
        replies = predictor.answer(predictor.prepare(requests))
        tokens = sum(reply.length_tokens for reply in replies)
        nats = -sum(reply.log_likelihood for reply in replies)
        rounding.check(nats / tokens, plain, exact)


def test_a_wrong_kind_of_row_is_refused(classifier, tmp_path):
    with pytest.raises(InputError):
        rows_of(classifier, "classifier", tmp_path)
    assert AutoTokenizer.from_pretrained(classifier.model)


def test_a_known_cut_outside_the_blocks_is_scored_too(classifier, tmp_path):
    source = ModelSource(str(classifier.model))
    task = TaskConfig(name="jsonl", data=str(tmp_path / "asked.jsonl"))
    record, trial = study_of_cut(
        tmp_path / "by hand", source, ["classifier=rank:1"], task, str(tmp_path / "factors")
    )
    assert trial.text == "classifier=rank:1"
    assert trial.score is not None and record.summary.baseline is not None
