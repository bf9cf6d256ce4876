import logging
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import search
from search.weights.factors import Busy, DamagedFactorsError, FactorCache, content_key
from tasks.errors import InputError


def matrix(out=12, into=20, seed=0):
    return torch.randn(out, into, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def cache(tmp_path):
    return FactorCache(tmp_path / "factors")


def stored(cache, weight, origin="test:0.fc_in"):
    key = content_key(weight)
    assert cache.ensure(weight, key, origin)
    return key


def test_key_is_of_bytes_shape_and_dtype():
    weight = matrix()
    key = content_key(weight)
    assert content_key(weight.clone()) == key
    assert content_key(weight.T.contiguous().T) == key
    other = weight.clone()
    other[3, 4] = torch.nextafter(other[3, 4], torch.tensor(9.0))
    variants = [other, weight.bfloat16(), weight.double(), weight.reshape(20, 12), weight.T]
    assert len({content_key(w) for w in variants} | {key}) == 6
    assert content_key(weight, "bfloat16") != key


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 999), st.data())
def test_product_is_the_best_of_its_rank(tmp_path_factory, out, into, seed, data):
    weight = matrix(out, into, seed)
    cache = FactorCache(tmp_path_factory.mktemp("factors"))
    key = stored(cache, weight)
    full = min(out, into)
    rank = data.draw(st.integers(0, full))
    U, S, Vh = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    expected = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    rest = (U[:, rank:] * S[rank:]) @ Vh[rank:]
    factors = cache.load(key, rank)
    np.testing.assert_allclose(cache.spectrum(key).numpy(), S, atol=1e-6)
    for known in (None, weight):
        np.testing.assert_allclose(factors.product(rank, known).numpy(), expected, atol=2e-5)
        np.testing.assert_allclose(factors.span(rank, full, known).numpy(), rest, atol=2e-5)


def test_second_ensure_computes_nothing_and_reads_nothing(cache):
    key = stored(cache, matrix())

    def forbidden():
        raise AssertionError("the weight was read")

    assert not cache.ensure(forbidden, key, "elsewhere:1.fc_in")
    assert not FactorCache(cache.root).ensure(forbidden, key, "third")
    assert cache.index()[key].origins == ("elsewhere:1.fc_in", "test:0.fc_in", "third")


def test_a_weight_under_another_key_is_refused(cache):
    with pytest.raises(ValueError, match="does not have the key"):
        cache.ensure(matrix(seed=1), content_key(matrix(seed=0)), "x")
    assert list(cache.keys()) == []


def test_missing_key(cache):
    with pytest.raises(KeyError, match="no factors"):
        cache.load("ab" * 20)


def test_file_is_plain_safetensors_and_rank_major(cache):
    weight = matrix()
    key = stored(cache, weight)
    with safe_open(cache.path(key), framework="pt") as stream:
        U, V, S = (stream.get_tensor(name) for name in ("U", "V", "spectrum"))
        assert stream.metadata()["key"] == key
    assert (U.shape, V.shape) == ((12, 12), (12, 20))
    assert torch.allclose((U.T * S) @ V, weight, atol=1e-5)


def flip(path, offset):
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ (1 << random.Random(offset).randrange(8))]))


def test_any_flipped_byte_is_found_set_aside_and_computed_again(tmp_path, caplog):
    """Every byte of the file, one at a time; how it is computed again does not depend on which."""
    caplog.set_level(logging.CRITICAL)
    weight = matrix(3, 5)
    pristine_cache = FactorCache(tmp_path / "pristine")
    key = stored(pristine_cache, weight)
    pristine = pristine_cache.path(key).read_bytes()
    cache = FactorCache(tmp_path / "factors")
    path = cache.path(key)
    path.parent.mkdir(parents=True)
    for offset in range(len(pristine)):
        path.write_bytes(pristine)
        flip(path, offset)
        with pytest.raises(DamagedFactorsError):
            cache.load(key)
        assert not path.exists()
        if offset % 8 == 0:
            path.write_bytes(pristine)
            flip(path, offset)
            assert cache.ensure(weight, key, "test:0.fc_in"), offset
            assert path.read_bytes() == pristine
    assert path.with_name(f"{path.name}.damaged").exists()


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 200, -1])
def test_truncated_files_are_found(cache, length, caplog):
    weight = matrix()
    key = stored(cache, weight)
    path = cache.path(key)
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with caplog.at_level(logging.WARNING), pytest.raises(DamagedFactorsError):
        cache.load(key)
    assert "set aside" in caplog.text
    path.write_bytes(whole[:length])
    assert cache.ensure(weight, key, "again")
    assert path.read_bytes()[-100:] == whole[-100:]


def test_a_file_with_more_bytes_or_of_another_key_is_found(cache):
    weight = matrix()
    key, other = stored(cache, weight), stored(cache, matrix(seed=1))
    with cache.path(key).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(DamagedFactorsError):
        cache.load(key)
    cache.path(key).parent.mkdir(exist_ok=True)
    cache.path(other).replace(cache.path(key))
    with pytest.raises(DamagedFactorsError, match="another matrix"):
        cache.load(key)


def test_swapped_rows_are_found(cache):
    key = stored(cache, torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    path = cache.path(key)
    data = bytearray(path.read_bytes())
    rows = len(data) - 2 * 36
    for region in (rows, rows + 36):  # U and V hold the same three unit rows
        data[region : region + 24] = data[region + 12 : region + 24] + data[region : region + 12]
    digests = rows - 48
    data[digests : digests + 32] = data[digests + 16 : digests + 32] + data[digests : digests + 16]
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedFactorsError, match="row 0"):
        cache.load(key)


def test_reading_rank_r_depends_on_r_rows_alone(cache):
    """All bytes behind the first r rows of U and V are destroyed, and rank r does not notice."""
    weight = matrix(40, 60)
    key = stored(cache, weight)
    expected = cache.load(key, 7).product(7)
    path, data = cache.path(key), bytearray(cache.path(key).read_bytes())
    right = len(data) - 40 * 60 * 4
    left = right - 40 * 40 * 4
    data[left + 7 * 40 * 4 : right] = bytes(right - left - 7 * 40 * 4)
    data[right + 7 * 60 * 4 :] = bytes(len(data) - right - 7 * 60 * 4)
    path.write_bytes(bytes(data))
    factors = cache.load(key, 7)
    assert torch.equal(factors.product(7), expected)
    assert (factors.U.shape, factors.V.shape) == ((7, 40), (7, 60))
    with pytest.raises(DamagedFactorsError, match="row 7"):
        factors.product(8)
    assert not path.exists()


def read_from_disk(path, rank):
    """Bytes that loading `rank` makes this process read from storage, its pages dropped first."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = storage_reads()
    factors = FactorCache(path.parents[1]).load(path.stem, rank)
    assert float(factors.product(rank).abs().sum()) > 0
    return storage_reads() - before


def storage_reads():
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's accounting")
def test_reading_rank_r_reads_the_bytes_of_r_rows(tmp_path):
    cache = FactorCache(tmp_path)
    path = cache.path(stored(cache, matrix(700, 900)))
    size = path.stat().st_size
    if read_from_disk(path, 700) < size:
        pytest.skip("this file system does not drop its pages on request")
    # Header and spectrum are read through a buffer with read-ahead; rows to whole pages.
    slack = 128 * 1024 + 8 * 4096
    for rank in (7, 70, 350):
        assert read_from_disk(path, rank) <= rank * (700 + 900 + 4) * 4 + slack
    assert read_from_disk(path, 7) < size / 20


def test_index_is_written_after_the_files_and_can_be_rebuilt(cache):
    weights = [matrix(6, 9, seed) for seed in range(3)]
    keys = [stored(cache, w, f"m:{i}.fc_in") for i, w in enumerate(weights)]
    table = pq.read_table(cache.root / "index.parquet")
    assert sorted(table["key"].to_pylist()) == sorted(keys)
    before = cache.index()
    for key, weight in zip(keys, weights, strict=True):
        entry = before[key]
        assert (entry.shape, entry.dtype, entry.method) == ((6, 9), "float32", "exact")
        assert entry.bytes == cache.path(key).stat().st_size
        np.testing.assert_allclose(
            entry.spectrum, np.linalg.svd(weight.double().numpy(), compute_uv=False), atol=1e-6
        )
    (cache.root / "index.parquet").write_bytes(b"torn")
    assert cache.index() == before
    assert cache.rebuild() == before == FactorCache(cache.root).index()
    cache.path(keys[0]).unlink()
    assert set(cache.rebuild()) == set(keys[1:])


def test_context_writes_the_index_once_at_the_end(tmp_path):
    with FactorCache(tmp_path) as cache:
        for seed in range(3):
            stored(cache, matrix(4, 5, seed), f"m:{seed}.fc_in")
        assert not (tmp_path / "index.parquet").exists()
    assert len(FactorCache(tmp_path).index()) == 3


BUILDER = """
import sys, torch
torch.set_num_threads(1)
from search.weights.factors import FactorCache, content_key
name, root = sys.argv[1:]
cache = FactorCache(root)
computed = 0
for seed in range(20):
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(seed))
    key = content_key(weight)
    computed += cache.ensure(weight, key, f"{name}:{seed}.fc_in")
    assert torch.allclose(cache.load(key).product(24), weight, atol=1e-5)
print(computed)
"""


def test_two_processes_build_one_cache_at_once(tmp_path, forked):
    builders = [forked.Forked(BUILDER, name, tmp_path) for name in ("first", "second")]
    ended = [builder.ended() for builder in builders]
    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    assert sum(int(done.stdout) for done in ended) == 20, "claims: none is computed twice"
    cache = FactorCache(tmp_path)
    index = cache.index()
    assert set(index) == set(cache.keys()) and len(index) == 20
    assert all(cache.verify(key) for key in index)
    for entry in index.values():
        seed = entry.origins[0].partition(":")[2]
        assert entry.origins == (f"first:{seed}", f"second:{seed}")
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".damaged")]


def test_full_disk_gives_a_sentence_and_keeps_what_is_there(cache, monkeypatch):
    key = stored(cache, matrix(seed=0))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.weights.factor_file.write", full)
    other = matrix(seed=1)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        cache.ensure(other, content_key(other), "x")
    assert cache.verify(key) and list(cache.keys()) == [key]
    assert not list(cache.root.rglob("*.tmp"))


READER = """
import os, sys, torch
from search.weights.factors import FactorCache, content_key
if os.geteuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)
cache = FactorCache(sys.argv[1])
make = lambda seed: torch.randn(24, 40, generator=torch.Generator().manual_seed(seed))
print(cache.ensure(make(0), content_key(make(0)), "other:0.fc_in"))
try:
    cache.ensure(make(1), content_key(make(1)), "m:1.fc_in")
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("lock", [True, False])
def test_a_read_only_folder_serves_what_it_has_and_refuses_the_rest(lock, forked):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        stored(FactorCache(root), matrix(24, 40, 0), "m:0.fc_in")
        if not lock:
            (root / ".index.lock").unlink()
        folders = [root, *(path for path in root.iterdir() if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        done = forked.run(READER, name)
        for folder in folders:
            folder.chmod(0o755)
    had, refused = done.stdout.splitlines()
    assert had == "False", done.stderr
    assert refused.startswith("InputError the factors folder")
    assert "make it writable" in refused


def test_a_file_of_some_ranks_serves_them_and_is_replaced_for_more(cache):
    weight = matrix()
    key = content_key(weight)
    assert cache.ensure(weight, key, "few", rank=3)
    small = cache.path(key).stat().st_size
    assert not cache.ensure(weight, key, "few", rank=3)
    assert len(cache.spectrum(key)) == 12
    few = cache.load(key, 3).product(3)
    with pytest.raises(KeyError):
        cache.load(key, 4)
    with pytest.raises(KeyError):
        cache.load(key, 0, holding=12)
    with pytest.raises(ValueError, match="holds 3 ranks"):
        cache.load(key, 3).product(4)
    assert cache.verify(key)
    assert cache.ensure(weight, key, "all")
    assert cache.path(key).stat().st_size > small
    assert torch.equal(cache.load(key, 3).product(3), few)
    assert not cache.ensure(weight, key, "few", rank=3)
    assert cache.load(key).rank == 12


def test_bfloat16_factors_have_keys_of_their_own_and_a_known_error(tmp_path):
    weight = matrix(96, 160)
    exact, coarse = FactorCache(tmp_path), FactorCache(tmp_path, stored="bfloat16")
    assert exact.key(weight) == content_key(weight) != coarse.key(weight)
    for cache in (exact, coarse):
        cache.ensure(weight, cache.key(weight), "test")
    size = [cache.path(cache.key(weight)).stat().st_size for cache in (exact, coarse)]
    assert size[1] < 0.53 * size[0]
    for rank in (1, 10, 40):
        best = exact.load(exact.key(weight)).product(rank)
        off = (coarse.load(coarse.key(weight)).product(rank) - best).norm() / best.norm()
        assert 1e-4 < off < 0.003
    rows = exact.load(exact.key(weight)).U
    rounded = coarse.load(coarse.key(weight)).U
    assert ((rounded - rows).abs() <= rows.abs() / 256 + 1e-30).all()
    assert torch.equal(exact.spectrum(exact.key(weight)), coarse.spectrum(coarse.key(weight)))
    with pytest.raises(InputError, match="'int8'"):
        FactorCache(tmp_path, stored="int8")


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_flipped_byte_in_a_file_of_some_ranks_is_found(tmp_path, stored):
    cache = FactorCache(tmp_path, stored=stored)
    weight = matrix()
    key = cache.key(weight)
    cache.ensure(weight, key, "test", rank=3)
    whole = cache.path(key).read_bytes()
    for place in range(0, len(whole), 7):
        torn = bytearray(whole)
        torn[place] ^= 1
        cache.path(key).write_bytes(torn)
        assert not cache.verify(key)
        assert cache.ensure(weight, key, "test", rank=3)
    assert cache.path(key).read_bytes() == whole


HOLDER = """
import os, signal, sys
from pathlib import Path
from search.weights.claims import claim
with claim(Path(sys.argv[1])) as held:
    print(held, flush=True)
    signal.pause()
"""


def test_a_claim_is_respected_and_ends_with_its_holder(cache):
    weight = matrix()
    key = content_key(weight)
    folder = cache.path(key).parent
    folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / ".claim")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(search.__file__).parents[1])},
    )
    assert holder.stdout.readline() == b"True\n"
    with pytest.raises(Busy):
        cache.ensure(weight, key, "test", wait=False)
    holder.kill()
    holder.wait()
    assert cache.ensure(weight, key, "test", wait=False)


@pytest.mark.parametrize("rows", ["those that were read", "all"])
def test_what_is_written_over_a_file_that_is_open_is_never_used(tmp_path, rows):
    cache = FactorCache(tmp_path)
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(3))
    key = cache.key(weight)
    cache.ensure(weight, key, "m/0.fc_in")
    factors = cache.load(key, 4 if rows == "those that were read" else 8)
    before = factors.U.clone(), factors.V.clone()
    path = cache.path(key)
    data = bytearray(path.read_bytes())
    data[-4 * 8 * 8 - 4 * 12 * 8 :] = bytes(4 * 8 * 8 + 4 * 12 * 8)
    with path.open("r+b") as stream:
        stream.write(data)
    assert torch.equal(factors.U, before[0])
    assert torch.equal(factors.V, before[1])
    with pytest.raises(DamagedFactorsError, match="altered"):
        factors.ranks(0, 2)


def test_a_file_that_is_open_and_cut_is_said_and_ends_no_process(tmp_path):
    cache = FactorCache(tmp_path)
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    key = cache.key(weight)
    cache.ensure(weight, key, "m/0.fc_in")
    factors = cache.load(key, 4)
    os.truncate(cache.path(key), 100)
    with pytest.raises(DamagedFactorsError, match="size changed"):
        factors.ranks(0, 8)
