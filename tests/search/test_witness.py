"""Trials never depend on what happens to a file after it was checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from search.model import ModelSource
from search.witness import FilesChanged, Witness, data_files


def llama(seed: int, **options) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=24,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            **options,
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    llama(0).save_pretrained(made)
    (made / "tokenizer.json").write_text("{}")
    return made


def sealed(folder: Path, *data: Path) -> Witness:
    witness = Witness(folder, data)
    witness.seal()
    witness.check()
    return witness


def overwrite(path: Path) -> None:
    """Write over a file in place: the same inode and size, other bytes."""
    with path.open("r+b") as stream:
        size = path.stat().st_size
        stream.seek(size // 2)
        stream.write(b"\0" * (size - size // 2))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def disguise(path: Path) -> None:
    """Other bytes of the same size, with the time of the old ones put back."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("harm", [overwrite, replace, cut, disguise, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_of_the_model_that_changed_is_named(folder, harm, name) -> None:
    witness = sealed(folder)
    harm(folder / name)
    for _ in range(2):
        with pytest.raises(FilesChanged, match=rf"{name} changed while the study ran"):
            witness.check()


def test_a_new_file_that_the_model_would_be_read_from_is_named(folder) -> None:
    witness = sealed(folder)
    (folder / "README").write_text("nothing that is read")
    witness.check()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(FilesChanged, match=r"chat_template\.jinja changed"):
        witness.check()


def test_a_file_that_was_touched_or_put_back_is_the_same(folder, tmp_path) -> None:
    witness = sealed(folder)
    os.utime(folder / "config.json")
    witness.check()
    kept = shutil.copy(folder / "model.safetensors", tmp_path / "kept")
    overwrite(folder / "model.safetensors")
    shutil.copy(kept, folder / "model.safetensors")
    witness.check()


def test_data_is_watched_too_a_file_or_a_folder_of_them(folder, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text('{"prompt": "x", "answer": "y"}\n')
    assert data_files(data) == [data / "a.jsonl"]
    assert data_files(data / "a.jsonl") == [data / "a.jsonl"]
    assert data_files(tmp_path / "nowhere") == []
    witness = sealed(folder, *data_files(data))
    (data / "a.jsonl").write_text('{"prompt": "x", "answer": "z"}\n')
    with pytest.raises(FilesChanged, match=r"a\.jsonl changed"):
        witness.check()


def test_a_file_that_changes_before_it_is_sealed_is_refused(folder) -> None:
    witness = Witness(folder)
    replace(folder / "config.json")
    with pytest.raises(FilesChanged, match=r"config\.json changed while it was being read"):
        witness.seal()


def test_a_worker_elsewhere_digests_and_one_on_the_same_files_does_not(
    folder, tmp_path, monkeypatch
) -> None:
    facts = sealed(folder).facts()
    copy = shutil.copytree(folder, tmp_path / "copy")
    Witness.sworn(copy, facts).check()
    monkeypatch.setattr("search.witness.digest_file", None)
    Witness.sworn(folder, facts).check()
    monkeypatch.undo()
    overwrite(copy / "model.safetensors")
    with pytest.raises(FilesChanged, match=r"model\.safetensors changed"):
        Witness.sworn(copy, facts).check()


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize("harm", [overwrite, cut])
def test_a_loaded_model_does_not_follow_its_file(tmp_path, harm, tied) -> None:
    llama(0, tie_word_embeddings=tied).save_pretrained(tmp_path)
    model = ModelSource(str(tmp_path)).load()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    harm(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    same = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert same == tied


def test_a_study_stops_records_nothing_and_goes_on_when_the_file_is_back(
    folder, tmp_path, make_config, open_study, evaluation, drive
) -> None:
    config = make_config(trials=8, strategy="random")
    whole = open_study(tmp_path / "whole", config)
    drive(whole)
    study = open_study(tmp_path / "s", config, witness=sealed(folder))
    drive(study, limit=5)
    (flying, other) = (study.next_job(), study.next_job())
    kept = shutil.copy(folder / "model.safetensors", tmp_path / "kept")
    overwrite(folder / "model.safetensors")
    study.finish(flying, evaluation(study, flying))
    said = study.stopped
    assert "model.safetensors changed while the study ran" in said
    assert flying.name in said
    assert other.name in said
    assert "laser-search resume" in said
    study.finish(other, evaluation(study, other))
    assert study.next_job() is None
    assert study.stopped == said
    assert not study.is_intact(), "no verdict"
    assert study.running() == []
    assert not (tmp_path / "s" / "outcomes" / f"{flying.name}.parquet").exists()
    shutil.copy(kept, folder / "model.safetensors")
    again = open_study(tmp_path / "s", config, witness=sealed(folder))
    assert set(drive(again)) >= {flying.effect, other.effect}, "they run again"
    assert [(t.number, t.score, t.params) for t in again.trials()] == [
        (t.number, t.score, t.params) for t in whole.trials()
    ]


def test_a_study_whose_files_changed_tells_that_and_not_what_a_worker_says(
    folder, tmp_path, make_config, open_study, drive
) -> None:
    """A worker that cannot load a changed file knows less than the study does."""
    study = open_study(tmp_path / "s", make_config(trials=8), witness=sealed(folder))
    drive(study, limit=3)
    job = study.next_job()
    cut(folder / "model.safetensors")
    study.abandon(job, "OSError: it cannot be read")
    assert "model.safetensors changed while the study ran" in study.stopped
    assert job.name in study.stopped
    assert "it cannot be read" not in study.stopped
    assert study.running() == []
    assert study.trials()[job.number].state.name == "RUNNING"
