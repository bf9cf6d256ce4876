"""Finished studies of tiny models of any family, with the compositions that a test wants."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import create_trial
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from search.config import parse_config, write_config
from search.cuts.composition import Composition
from search.evaluation.evaluator import Questions, open_evaluator
from search.plan import make_plan
from search.study.identity import Digests, Identity, digest_checkpoint, digest_weights
from search.study.jobs import BASELINE, Job, trial_name
from search.study.optuna_study import METRICS
from search.study.outcomes import write_outcomes
from search.study.storages import open_storage
from search.study.study_record import CONFIG, StudyRecord

WORDS = [f"w{i}" for i in range(43)]
SPECIAL = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[MASK]"]


def load_families():
    path = Path(__file__).parents[1] / "weights" / "test_families.py"
    spec = importlib.util.spec_from_file_location("families_under_export", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **names)


def write_questions(path: Path, count: int = 24) -> None:
    rows = []
    for i in range(count):
        a, b, c = WORDS[i % 40], WORDS[(7 * i + 3) % 40], WORDS[(5 * i + 1) % 40]
        rows.append({"prompt": f"{a} {b}", "answer": c, "group": str(i), "choices": [c, WORDS[41]]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_labels(path: Path, count: int = 24) -> None:
    rows = [
        {"text": f"{WORDS[i % 40]} {WORDS[(7 * i) % 40]}", "label": i % 2, "group": str(i)}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass
class Finished:
    """A study folder, its record, and its model's folder."""

    folder: Path
    model: Path

    @property
    def record(self) -> StudyRecord:
        return StudyRecord.read(self.folder)


def finish_study(root: Path, model, compositions: list[str], **options) -> Finished:
    """A study of `model` (a transformers model) with one complete trial per composition."""
    base = root / "base"
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # so that logits differ
    if getattr(model.config, "is_encoder_decoder", False):
        start = getattr(model.config, "decoder_start_token_id", None)
        model.generation_config.decoder_start_token_id = start if start is not None else 0
    model.config.pad_token_id = 0
    shard = options.pop("max_shard_size", "50GB")
    data, asked = options.pop("data", None), options.pop("asked", None)
    model.save_pretrained(base, max_shard_size=shard)
    make_tokenizer().save_pretrained(base)
    questions = data or root / "questions.jsonl"
    if data is None:
        write = (
            write_labels if "SequenceClassification" in type(model).__name__ else write_questions
        )
        write(questions)
    config = parse_config(
        {
            "model": {"path": str(base), **options},
            **(asked or {"task": {"name": "jsonl", "data": str(questions)}}),
            "split": {"validation": 0.5},
            "space": {"matrices": ["all"]},
            "factors": str(root / "factors"),
        },
        "test",
    )
    folder = root / "study"
    folder.mkdir()
    plan = make_plan(config)
    parts = {"validation": plan.split.validation, "test": plan.split.test}
    questions = Questions(plan.task, parts, objective=plan.objective)
    evaluator = open_evaluator(plan.source, questions, config.factors)
    keys = {str(ref): key for ref, key in evaluator.editor.keys(plan.space.matrices).items()}
    world = Digests(digest_weights(keys), digest_checkpoint(plan.source.folder), "e", "s")
    identity = Identity.new(world)
    identity.write(folder)
    write_config(config, folder / CONFIG)
    evaluator._study_id = identity.study_id
    write_outcomes(folder, evaluator.evaluate(Job(BASELINE, Composition(), "", "validation")))
    study = optuna.create_study(
        study_name=identity.study_id, storage=open_storage(folder, None), direction="maximize"
    )
    study.set_user_attr(METRICS, plan.objective.metrics)
    shapes = {ref: matrix.shape for ref, matrix in evaluator.editor._matrices.items()}
    for number, text in enumerate(compositions):
        composition = Composition.parse(text.split())
        effect = composition.effect({ref: min(shape) for ref, shape in shapes.items()})
        found = evaluator.evaluate(
            Job(trial_name(number), composition, effect, "validation", number)
        )
        write_outcomes(folder, found)
        facts = {"composition": str(composition), "effect": effect, "log_loss": found.log_loss}
        if found.scores:
            facts["scores"] = found.scores
        study.add_trial(create_trial(value=found.score, user_attrs=facts))
    return Finished(folder, base)


@pytest.fixture(scope="session")
def families():
    return load_families()


@pytest.fixture(scope="session")
def finish():
    return finish_study


@pytest.fixture(scope="session")
def gptj(tmp_path_factory, families):
    """A GPT-J, sharded, whose trial 0 cuts deep and trial 1 shaves."""
    cuts = ["0.q_proj=rank:2 1.fc_in=rank:3 1.fc_out=0.9", "1.fc_in=0.9 1.out_proj=0.8"]
    root = tmp_path_factory.mktemp("gptj")
    return finish_study(root, families.build("GPT-J"), cuts, max_shard_size="20KB")
