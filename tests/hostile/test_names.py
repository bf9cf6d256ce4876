"""Names from outside stay in their folder, in reading and in writing."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from search.export.stream import rewrite
from tasks.errors import InputError
from tasks.inside import check_links, inside

ESCAPES = [
    "../x/thesis.txt", "../x/thesis.safetensors", "/etc/w.safetensors", "a/../../w.safetensors",
    "..\\w.safetensors", "C:\\w.safetensors", "C:w.safetensors", "w\0.safetensors",
    "\\\\host\\w.safetensors", "./w.safetensors", "a//w.safetensors", "", "..", "w\n.safetensors",
    "config.json", 3, None, ["w.safetensors"],
]  # fmt: skip


def shard(folder, name):
    """Give a checkpoint one shard, whose index says `name`, and a file where that leads."""
    tensors = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    return folder / "shard.safetensors"


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leaves_its_folder(name, tmp_path):
    with pytest.raises(InputError, match="the file"):
        inside(tmp_path, name, "an index", suffix=".safetensors")


@pytest.mark.parametrize("name", ESCAPES)
def test_commands_refuse_a_shard_elsewhere(name, refused, model, questions, study, tmp_path):
    shard(model, name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ("evaluate", model, "--task", "jsonl", "--data", questions),
        ("launch", study(), "--out", tmp_path / "out"),
    ):
        assert "index.json" in refused(*words)
    assert not (tmp_path / "out").exists()
    for path, data in before.items():
        assert path.read_bytes() == data


def test_apply_overwrites_nothing(refused, run, model, sound, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_of(sound)))
    assert run("apply", recipe, "--model", model, "--out", tmp_path / "fine")[0] == 0
    (tmp_path / "x").mkdir()
    thesis = tmp_path / "x" / "thesis.safetensors"
    shutil.move(shard(model, "../x/thesis.safetensors"), thesis)
    before = thesis.read_bytes()
    refused("apply", recipe, "--model", model, "--out", tmp_path / "out")
    assert thesis.read_bytes() == before and not (tmp_path / "out").exists()


def recipe_of(model):
    """A recipe as export writes it."""
    from dataclasses import asdict

    from search.cuts.composition import Composition
    from search.export.base import Base
    from search.export.patch import RECIPE_FORMAT, Origin
    from search.model import ModelSource
    from search.weights.factors import FactorCache

    composition, store = Composition.parse(["1.fc_in=0.5"]), FactorCache(model.parent / "factors")
    origin = Origin.of(Base(ModelSource(str(model))), RECIPE_FORMAT, composition, store)
    return {key: value for key, value in asdict(origin).items() if key != "tensors"}


def test_a_writer_meets_no_link(model, tmp_path):
    out, thesis = tmp_path / "out", tmp_path / "thesis"
    out.mkdir()
    thesis.write_text("years of work")
    (out / "model.safetensors").symlink_to(thesis)
    tensors = load_file(model / "model.safetensors")
    with pytest.raises(FileExistsError):
        rewrite(model, dict.fromkeys(tensors, "model.safetensors"), out, {})
    assert thesis.read_text() == "years of work"


def test_links_of_the_hub_are_read(run, model, questions, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    shard(model, "model-1.safetensors")
    for path in list(model.iterdir()):
        name = "model-1.safetensors" if path.suffix == ".safetensors" else path.name
        path.rename(blobs / path.name)
        (snapshot / name).symlink_to(f"../../blobs/{path.name}")
    assert run("evaluate", snapshot, "--task", "jsonl", "--data", questions)[0] == 0
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_of(snapshot)))
    assert run("apply", recipe, "--model", snapshot, "--out", tmp_path / "out")[0] == 0
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["outcomes", "logs", "lease"])
def test_a_study_folder_with_a_link_that_leads_out_is_not_written(name, refused, study, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / name).symlink_to(elsewhere)
    said = refused("launch", study(), "--out", out)
    assert "symbolic link" in said and name.split("/")[-1] in said
    assert not any(elsewhere.iterdir())


def test_a_link_that_stays_is_fine(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    check_links(tmp_path)


def test_a_replaced_file_is_the_link_itself(tmp_path):
    from search.durable import write_text

    thesis = tmp_path / "thesis"
    thesis.write_text("years of work")
    (tmp_path / "report.html").symlink_to(thesis)
    write_text(tmp_path / "report.html", "report")
    assert thesis.read_text() == "years of work"
    assert not (tmp_path / "report.html").is_symlink()


def test_an_export_in_the_place_of_a_link_leaves_what_it_led_to(tmp_path):
    from search.export.folder import new_folder

    (tmp_path / "home").mkdir()
    (tmp_path / "out").symlink_to("home")
    with new_folder(tmp_path / "out", 0, overwrite=True) as partial:
        save_file({}, partial / "model.safetensors")
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
    assert not any((tmp_path / "home").iterdir())


@pytest.mark.parametrize("key", ["../../x", "", "..", "ab/cd", "AB" * 20, "ab" * 200])
def test_a_cache_has_no_key_but_digests(key, tmp_path):
    from search.weights.factors import FactorCache

    cache = FactorCache(tmp_path / "factors")
    with pytest.raises(InputError, match="key"):
        cache.path(key)


def test_a_study_with_an_id_that_is_a_path_is_damaged(refused, tmp_path):
    facts = dict.fromkeys(("created", "weights", "checkpoint", "examples", "settings"), "x")
    facts |= {"study_id": "../../home", "versions": {}}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    assert "study_id" in refused("status", tmp_path)


def leads_away(folder, name, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if (folder / name).exists():
        shutil.move(folder / name, target)
    else:
        target.write_text("a private key")
    (folder / name).symlink_to(target)


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer_config.json", "notes.txt"])
def test_no_file_from_elsewhere_is_copied_into_a_model(name, refused, run, model, sound, tmp_path):
    """A stranger's checkpoint may link to any file of this machine; an export may be published."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_of(sound)))
    leads_away(model, name, tmp_path / "private" / "key")
    said = refused("apply", recipe, "--model", model, "--out", tmp_path / "out")
    assert str(model / name) in said and "symbolic link" in said and "put a copy" in said
    assert not (tmp_path / "out").exists()
    (model / name).unlink()
    (model / name).write_bytes((tmp_path / "private" / "key").read_bytes())
    assert run("apply", recipe, "--model", model, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / name).exists()


def test_links_as_the_hub_keeps_them_and_within_a_checkpoint_are_files(run, model, sound, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_of(sound)))
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    shutil.copytree(model, snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        leads_away(snapshot, path.name, tmp_path / "hub" / "blobs" / f"{number:040x}")
    (snapshot / "NOTICE").symlink_to("config.json")
    assert run("apply", recipe, "--model", snapshot, "--out", tmp_path / "out")[0] == 0
    for path in (tmp_path / "out").iterdir():
        assert not path.is_symlink()
    assert (tmp_path / "out" / "NOTICE").read_bytes() == (model / "config.json").read_bytes()
