"""Second moments on disk: whole, of the right model, or absent."""

import os
import pickle

import pytest
import torch
from safetensors import safe_open

from search.weights.factors import FactorCache
from search.weights.moments import MomentStore
from search.weights.upkeep import collect
from tasks.errors import InputError

NAME, CALIBRATION = "model.layers.0.mlp.up_proj.weight", "c0ffee"


def second(width=6, seed=0):
    inputs = torch.randn(20, width, generator=torch.Generator().manual_seed(seed)).double()
    return inputs.T @ inputs / 20


def test_what_is_stored_is_what_is_read_and_other_programs_read_it_too(tmp_path):
    store = MomentStore(tmp_path)
    saved = store.save(CALIBRATION, NAME, second(), 20)
    assert MomentStore(tmp_path).find(CALIBRATION, NAME) == saved
    again = pickle.loads(pickle.dumps(saved))
    assert torch.equal(again.read(), second())
    (path,) = tmp_path.rglob("*.safetensors")
    with safe_open(path, framework="pt") as stream:
        assert torch.equal(stream.get_tensor("moment"), second())
        assert stream.metadata()["tokens"] == "20"


def test_each_bit_of_a_file_counts(tmp_path):
    store = MomentStore(tmp_path)
    saved = store.save(CALIBRATION, NAME, second(), 20)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert store.load(saved) is None, place
        assert path.with_name(f"{path.name}.damaged").exists()
    path.write_bytes(whole[:-1])
    assert store.load(saved) is None
    assert store.find(CALIBRATION, NAME) is None


def test_a_file_of_another_model_is_refused(tmp_path):
    store = MomentStore(tmp_path)
    store.save("other", NAME, second(), 20)
    (path,) = tmp_path.rglob("*.safetensors")
    (tmp_path / "moments" / CALIBRATION).mkdir()
    path.rename(tmp_path / "moments" / CALIBRATION / path.name)
    with pytest.raises(InputError, match="to another model or other calibration texts"):
        store.find(CALIBRATION, NAME)


def test_one_that_is_gone_is_named(tmp_path):
    saved = MomentStore(tmp_path).save(CALIBRATION, NAME, second(), 20)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(InputError, match=r"no longer holds .*up_proj"):
        saved.read()


def test_what_damage_and_kills_leave_is_waste(tmp_path):
    saved = MomentStore(tmp_path).save(CALIBRATION, NAME, second(), 20)
    (path,) = tmp_path.rglob("*.safetensors")
    left = path.with_name(".moment-x.safetensors.abc.tmp")
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    path.write_bytes(path.read_bytes()[:-1])
    assert MomentStore(tmp_path).load(saved) is None
    found = collect(FactorCache(tmp_path), None)
    assert {one.path for one in found} == {left, path.with_name(f"{path.name}.damaged")}


def test_a_url_is_as_good_as_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LASER_FACTORS_CACHE", str(tmp_path / "copies"))
    from search.weights.remote import open_moments

    url = f"memory://{tmp_path.name}/factors"
    store = open_moments(url)
    assert store.find(CALIBRATION, NAME) is None
    with store.claimed(CALIBRATION):
        saved = store.save(CALIBRATION, NAME, second(), 20)
    assert open_moments(url).find(CALIBRATION, NAME) == saved
    assert torch.equal(saved.read(), second())
