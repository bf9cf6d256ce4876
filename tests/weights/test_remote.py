"""Factors behind a URL, against a real S3 server on loopback."""

import logging
import sys
import threading
import uuid
from pathlib import Path

import fsspec
import pytest
import torch

import search.demo
from cluster.cli import main
from cluster.precompute import factor_matrices
from cluster.resources import Resources
from search.cuts.composition import Composition
from search.model import ModelSource
from search.storing import Storing
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from search.weights.remote import (
    BYTES_VARIABLE,
    FOLDER_VARIABLE,
    RemoteFactorCache,
    cache_bytes,
    open_factors,
)
from tasks.errors import InputError


def matrix(seed, out=12, into=20):
    return torch.randn(out, into, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """A URL in a new bucket; every node of the test finds the server by its environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        FOLDER_VARIABLE: str(tmp_path / "node"),
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir(name)
    return files, f"s3://{name}/factors"


def forbidden():
    pytest.fail("the matrix was computed again")


def remote_path(url, cache, key):
    return f"{url}/{cache.path(key).relative_to(cache.root).as_posix()}"


def test_another_node_reads_what_one_computed(bucket, tmp_path):
    _, url = bucket
    weight = matrix(0)
    with RemoteFactorCache(url, folder=tmp_path / "a") as first:
        key = first.key(weight)
        assert first.ensure(weight, key, "model:0.fc_in")
    second = RemoteFactorCache(url, folder=tmp_path / "b")
    assert list(second.keys()) == [key] and second.has(key)
    assert torch.equal(second.load(key, 5).product(5), first.load(key, 5).product(5))
    assert not second.ensure(forbidden, key, "other:0.fc_in")
    assert first.index()[key].origins == ("model:0.fc_in", "other:0.fc_in")


def test_a_model_is_edited_by_factors_that_another_node_computed(bucket, tmp_path, monkeypatch):
    _, url = bucket
    source = ModelSource(str(Path(search.demo.__file__).parent / "model"))
    model = source.load("cpu")
    found = [m for m in find_matrices(model) if str(m.ref) in ("0.fc_in", "1.fc_out")]
    composition = Composition.parse(["0.fc_in=0.1", "1.fc_out=0.25"])
    with Editor(model, found, FactorCache(tmp_path / "folder")).applied(composition):
        expected = {k: v.clone() for k, v in model.state_dict().items()}
    batch = factor_matrices(source, found, url, Resources(1, 1.0, 0.0, 1), Storing(), False)
    assert [built.computed for built in batch.ready] == [True, True]
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "another node"))
    monkeypatch.setattr("search.weights.svd.decompose", lambda *_: forbidden())
    with Editor(model, found, open_factors(url)).applied(composition):
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_both_nodes_rows_are_in_the_index(bucket, tmp_path):
    _, url = bucket
    nodes = [RemoteFactorCache(url, folder=tmp_path / str(i)) for i in range(2)]
    keys = [node.key(matrix(i)) for i, node in enumerate(nodes)]
    for i, node in enumerate(nodes):
        node.ensure(matrix(i), keys[i], f"model:{i}.fc_in")
    assert set(nodes[0].index()) == set(keys)
    bucket[0].rm(f"{url}/index.parquet")
    assert set(nodes[0].rebuild()) == set(keys) == set(nodes[1].index())


@pytest.mark.parametrize("harm", ["altered", "cut"])
def test_a_damaged_remote_file_is_set_aside_and_computed_again(bucket, tmp_path, caplog, harm):
    files, url = bucket
    weight = matrix(1)
    first = RemoteFactorCache(url, folder=tmp_path / "a")
    key = first.key(weight)
    first.ensure(weight, key, "model:0.fc_in")
    name = remote_path(url, first, key)
    whole = files.cat_file(name)
    middle = len(whole) // 2
    bad = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    files.pipe_file(name, bad if harm == "altered" else whole[:middle])
    second = RemoteFactorCache(url, folder=tmp_path / "b")
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError):
        second.load(key, 5)
    assert "damaged" in caplog.text
    assert files.exists(f"{name}.damaged") and not files.exists(name)
    assert not list((tmp_path / "b").rglob("*.safetensors*"))
    assert second.ensure(weight, key, "model:0.fc_in")
    assert files.cat_file(name) == whole


def test_a_damaged_copy_is_fetched_again(bucket, tmp_path):
    _, url = bucket
    node = RemoteFactorCache(url, folder=tmp_path / "a")
    weight = matrix(2)
    key = node.key(weight)
    node.ensure(weight, key, "model:0.fc_in")
    node.path(key).write_bytes(bytes(100))
    assert not node.ensure(forbidden, key, "model:0.fc_in")
    assert node.load(key, 12).rank == 12


def test_a_longer_remote_file_takes_the_place_of_a_copy(bucket, tmp_path):
    _, url = bucket
    first, second = (RemoteFactorCache(url, folder=tmp_path / name) for name in "ab")
    weight = matrix(3)
    key = first.key(weight)
    first.ensure(weight, key, "model:0.fc_in", rank=3)
    assert second.load(key, 3).rank == 3
    with pytest.raises(KeyError):
        second.load(key, 12)
    first.ensure(weight, key, "model:0.fc_in")
    assert second.load(key, 12).rank == 12


def test_copies_stay_within_the_bound_and_the_last_used_stay(bucket, tmp_path):
    _, url = bucket
    weights = [matrix(seed) for seed in range(4)]
    full = RemoteFactorCache(url, folder=tmp_path / "a")
    keys = [full.key(weight) for weight in weights]
    for weight, key in zip(weights, keys, strict=True):
        full.ensure(weight, key, "model:0.fc_in")
    bound = 2 * full.path(keys[0]).stat().st_size + 600
    small = RemoteFactorCache(url, folder=tmp_path / "b", budget_bytes=bound)
    original = FactorCache(tmp_path / "b" / "factors")
    original.ensure(weights[0], keys[0], "model:0.fc_in")

    def held():
        found = {p.stem: p.stat().st_size for p in small.root.glob("??/*.safetensors")}
        assert sum(found.values()) <= bound
        return set(found)

    a, b, c, d = keys
    kept = small.load(a, 2)
    for key in (b, a, c):  # c takes b's place
        small.load(key, 2)
        held()
    assert held() == {a, c}
    small.load(d, 2)
    assert held() == {c, d}
    assert torch.equal(kept.product(12), full.load(a).product(12))  # still mapped
    small.path(d).unlink()
    small.ensure(matrix(9), small.key(matrix(9)), "model:9.fc_in")
    assert len(held()) == 2 and original.has(keys[0])  # no copy, so not ours to drop


def test_many_writers_leave_one_whole_file(bucket, tmp_path):
    files, url = bucket
    weight = matrix(4)
    nodes = [RemoteFactorCache(url, folder=tmp_path / str(i)) for i in range(4)]
    key = nodes[0].key(weight)
    threads = [
        threading.Thread(target=node.ensure, args=(weight, key, f"m{i}:0.fc_in"))
        for i, node in enumerate(nodes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert RemoteFactorCache(url, folder=tmp_path / "reader").verify(key)
    assert not [name for name in files.find(url) if name.endswith(".damaged")]


def test_the_commands_take_a_url(bucket, tmp_path, monkeypatch, capsys):
    _, url = bucket
    with open_factors(url) as cache:
        cache.ensure(matrix(5), cache.key(matrix(5)), "model:0.fc_in")
    with pytest.raises(InputError, match=r"no-such-bucket-here.*cannot be written"):
        missing = open_factors("s3://no-such-bucket-here/x")
        missing.ensure(matrix(5), missing.key(matrix(5)), "model:0.fc_in")
    for words, code, expected in [
        (("verify", url), 0, "1 whole, 0 damaged"),
        (("rebuild", url), 0, "1 matrices in the index"),
        (("gc", url), 2, "is not a folder"),
        (("verify", "s3://no-such-bucket-here/x"), 2, "the bucket"),
        (("verify", "s4://bucket/x"), 2, "needs a driver for s4://"),
    ]:
        monkeypatch.setattr(sys, "argv", ["laser-search", "factors", *words])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == code
        assert expected in (printed.err if code else printed.out)
        assert printed.err.count("\n") == (1 if code else 0)


def test_a_store_that_does_not_answer_is_one_sentence(bucket, monkeypatch, tmp_path):
    _, url = bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot be used: .*check the address"):
        RemoteFactorCache(url, folder=tmp_path / "a").check()


def test_any_fsspec_url_and_a_plain_folder(tmp_path, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/factors"
    weight = matrix(6)
    first, second = (RemoteFactorCache(url, folder=tmp_path / name) for name in "ab")
    first.check()
    key = first.key(weight)
    first.ensure(weight, key, "model:0.fc_in")
    monkeypatch.setattr("search.weights.svd.decompose", forbidden)
    assert not second.ensure(weight, key, "model:0.fc_in")
    assert type(open_factors(tmp_path / "plain")) is FactorCache
    assert open_factors(f"file://{tmp_path}/plain").root == tmp_path / "plain"


def test_the_bound_is_a_number_of_bytes(monkeypatch):
    monkeypatch.setenv(BYTES_VARIABLE, "12345")
    assert cache_bytes() == 12345
    for wrong in ("50GB", "0", "-1"):
        monkeypatch.setenv(BYTES_VARIABLE, wrong)
        with pytest.raises(InputError, match=BYTES_VARIABLE):
            cache_bytes()
