"""A small sound model and questions, and ways to spoil a copy of them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

TEXTS = ["Question 1 is Paris", "yes no maybe 0 1 2 3 4 5 6 7 8 9"]


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A GPT-2 of two layers, saved whole."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    sizes = dict(n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None)
    config = GPT2Config(vocab_size=len(tokenizer), eos_token_id=0, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(sound, tmp_path):
    """A copy of the sound model that a test may spoil."""
    return shutil.copytree(sound, tmp_path / "model")


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"prompt": f"Question {i} is", "answer": str(i)} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def study(tmp_path, model, questions):
    """Write a study.yaml of the model with other keys changed: path."""
    import yaml

    def write(**changed):
        data = {
            "model": {"path": str(model)},
            "task": {"name": "jsonl", "data": str(questions)},
            "split": {"validation": 0.5},
            "search": {"strategy": "random", "trials": 2},
            "factors": str(tmp_path / "factors"),
            **changed,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


@pytest.fixture
def refused(run):
    """Run a command that must end with one sentence and exit code 2: the sentence."""

    def go(*words):
        code, _, said = run(*words)
        assert code == 2, said
        assert "laser-search: " in said and "Traceback" not in said, said
        return said[said.index("laser-search: ") :]  # a bar of transformers' may come before

    return go


def edit_json(path, **changed):
    """Change keys of a JSON file; None removes one."""
    facts = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))
