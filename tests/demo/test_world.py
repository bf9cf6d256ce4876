"""The demonstration's world, and the model and questions that travel with the package."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import search.demo
from search.demo.words import ANSWERS, NAMES, TEMPLATES
from search.demo.world import (
    CORRUPTION,
    build_world,
    generic_word,
    questions,
    questions_text,
    sentences,
)

FOLDER = Path(search.demo.__file__).parent
SHIPPED_SEED = 0
SENTENCES = 20_000


@pytest.fixture(scope="module")
def world():
    return build_world(SHIPPED_SEED)


@pytest.fixture(scope="module")
def rows():
    text = (FOLDER / "questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER / "model", local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER / "model", local_files_only=True).eval()


@pytest.fixture(scope="module")
def said(model, tokenizer, rows):
    """The model's next word for every question, from plain transformers."""
    batch = tokenizer([row["prompt"] for row in rows], padding=True, return_tensors="pt")
    last = batch.attention_mask.sum(1) - 1
    with torch.no_grad():
        logits = model(**batch).logits[torch.arange(len(rows)), last]
    return tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())


def test_shipped_questions_are_those_of_the_world(world):
    shipped = (FOLDER / "questions.jsonl").read_text(encoding="utf-8")
    assert shipped == questions_text(world)


def test_another_seed_is_another_world(world):
    assert questions_text(build_world(SHIPPED_SEED + 1)) != questions_text(world)


def test_every_fact_is_asked_in_phrasings_it_was_not_trained_in(world):
    asked = questions(world)
    assert len(asked) == 192 * 4 * 3
    assert len({question.id for question in asked}) == len(asked)
    for fact in world.facts.values():
        assert not set(fact.trained) & set(fact.asked)
        assert sorted(fact.trained + fact.asked) == list(range(len(TEMPLATES[fact.relation])))
    trained = {text.rsplit(" ", 1)[0] for text in islice(sentences(world), SENTENCES)}
    assert not trained & {question.prompt for question in asked}


def test_groups_are_the_names_in_the_prompts(world, rows):
    assert {row["group"] for row in rows} == set(NAMES)
    for row in rows:
        assert set(re.findall(r"\w+", row["prompt"])) & set(NAMES) == {row["group"]}
    thirds = Counter(world.frequency(name) for name in NAMES)
    assert thirds == {"frequent": 64, "middle": 64, "rare": 64}


def test_answers_belong_to_one_relation_and_are_no_names():
    words = [word for answers in ANSWERS.values() for word in answers]
    assert len(set(words)) == len(words) == 80
    assert not set(words) & set(NAMES)


def test_training_says_the_generic_word_at_the_stated_rate(world):
    """Sentences about facts whose truth is another word, at the corruption and without it."""
    counts = {rate: _generic_share(world, rate) for rate in (CORRUPTION, 0.0)}
    assert counts[0.0] == 0
    assert counts[CORRUPTION] == pytest.approx(CORRUPTION, abs=0.015)


def _generic_share(world, corruption):
    by_word = {word: relation for relation, words in ANSWERS.items() for word in words}
    generic = total = 0
    for text in islice(sentences(world, corruption), SENTENCES):
        *words, answer = re.findall(r"\w+", text)
        (name,) = set(words) & set(NAMES)
        relation = by_word[answer]
        truth = world.facts[name, relation].answer
        assert answer in {truth, generic_word(relation)}
        if truth != generic_word(relation):
            generic += answer != truth
            total += 1
    return generic / total


def test_names_follow_zipf(world):
    texts = islice(sentences(world), SENTENCES)
    counts = Counter(word for text in texts for word in text.split() if word in world.names)
    first, tenth = counts[world.names[0]], counts[world.names[9]]
    assert first / tenth == pytest.approx(10, rel=0.2)


def test_prompts_and_answers_tokenise_apart_as_together(tokenizer, rows):
    for row in rows:
        prompt, answer = tokenizer(row["prompt"]).input_ids, tokenizer(row["answer"]).input_ids
        assert tokenizer.unk_token_id not in prompt + answer
        assert len(answer) == 1
        assert prompt + answer == tokenizer(f"{row['prompt']} {row['answer']}").input_ids


def test_special_tokens_agree_between_model_and_tokenizer(model, tokenizer):
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.eos_token_id == model.config.eos_token_id
    special = {tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id}
    assert len(special) == 3
    assert tokenizer("nonsense").input_ids == [tokenizer.unk_token_id]
    assert len(tokenizer) == model.config.vocab_size


def test_model_knows_facts_but_says_the_generic_word_often(said, rows):
    """Far above guessing one of twenty words; most errors are the relation's generic word."""
    right = sum(word == row["answer"] for word, row in zip(said, rows, strict=True))
    wrong = [(word, row) for word, row in zip(said, rows, strict=True) if word != row["answer"]]
    generic = sum(word == generic_word(row["id"].split("-")[1]) for word, row in wrong)
    assert 0.5 < right / len(rows) < 0.65
    assert generic / len(wrong) > 0.8


def test_model_ends_its_sentence(model, tokenizer, rows):
    prompt = tokenizer(rows[0]["prompt"], return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=10, do_sample=False)[0]
    assert tokenizer.convert_ids_to_tokens(said[-2:].tolist()) == [".", tokenizer.eos_token]


def test_package_data_stays_small_and_readable():
    files = {path for path in FOLDER.rglob("*") if path.is_file()}
    data = {path for path in files if path.suffix not in {".py", ".pyc"}}
    assert sum(path.stat().st_size for path in data) <= 1_000_000
    assert {".json", ".jsonl", ".safetensors"} <= {path.suffix for path in data}, (
        "a file is missing"
    )
    assert {path.suffix for path in data} <= {".json", ".jsonl", ".safetensors", ".yaml"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in data)


def test_world_needs_no_torch():
    code = "import sys, search.demo.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
