"""`decompose` on the demo's model: in this process, and once through Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import search.demo
from cluster.precompute import factor_matrices, precompute, together
from cluster.resources import Resources
from search.cuts.level import Level
from search.ladder import Ladder
from search.model import ModelSource
from search.origin import WeightOrigin
from search.space import Space
from search.storing import PROCESS_WORK, Storing
from search.weights import svd
from search.weights.claims import claim
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.errors import InputError

SOURCE = ModelSource(str(Path(search.demo.__file__).parent / "model"))
ONE = Resources(workers=1, cpus=1.0, gpus=0.0, threads=1)


@pytest.fixture
def mlp():
    return [m for m in find_matrices(SOURCE.skeleton()) if m.ref.type == "fc_in"]


def test_finished_matrices_are_not_computed_again(mlp, tmp_path, monkeypatch):
    first = factor_matrices(SOURCE, mlp[:2], str(tmp_path), ONE, Storing(), False)
    assert [built.computed for built in first.ready] == [True, True]
    count = []
    exact = svd.decompose
    monkeypatch.setattr(svd, "decompose", lambda *args: count.append(args) or exact(*args))
    again = factor_matrices(SOURCE, mlp, str(tmp_path), ONE, Storing(), False)
    assert [built.computed for built in again.ready] == [False, False, True]
    assert len(count) == 1


def test_small_matrices_share_a_task_and_large_ones_do_not(mlp):
    """A task's process imports torch for seconds, which six small matrices are not worth."""

    def sized(*shape):
        return replace(mlp[0], shape=shape)

    tiny, medium, large = sized(256, 64), sized(1024, 1024), sized(4096, 4096)
    assert together([tiny] * 6) == [[tiny] * 6]
    ordered = [large, large, medium, medium, medium, medium, medium, tiny]
    assert together(ordered) == [[large], [large], [medium] * 2, [medium] * 2, [medium, tiny]]
    assert together([]) == []


def test_a_second_of_work_on_this_machine_needs_no_task(mlp, tmp_path, monkeypatch):
    """A task is a process that imports torch; more work, or another machine, is worth one."""
    asked = []

    class AskedError(Exception):
        pass

    def remote(function):
        asked.append(function)
        raise AskedError

    monkeypatch.setattr("ray.remote", remote)
    heard, threads = [], torch.get_num_threads()
    here = (SOURCE, mlp, tmp_path, replace(ONE, threads=threads + 1), Storing())
    keys = precompute(*here, lambda built: heard.append(built.address), here=True)
    assert sorted(keys) == sorted(heard) == sorted(str(matrix.ref) for matrix in mlp)
    assert len(FactorCache(tmp_path).index()) == len(mlp)
    assert torch.get_num_threads() == threads
    assert not asked
    large = [replace(mlp[0], shape=(4096, 4096))]
    elsewhere = [(mlp, ONE, False), (large, ONE, True), (mlp, replace(ONE, gpus=0.5), True)]
    for n, (matrices, shares, alone) in enumerate(elsewhere):
        with pytest.raises(AskedError):
            fresh = tmp_path / str(n)
            precompute(SOURCE, matrices, fresh, shares, Storing(), heard.append, here=alone)


def test_factors_that_are_there_need_no_task(mlp, tmp_path, monkeypatch):
    """Whatever they took, and with a GPU too: tasks only look for what is missing."""
    factor_matrices(SOURCE, mlp[:2], str(tmp_path), ONE, Storing(), False)
    monkeypatch.setattr("search.storing.PROCESS_WORK", 0)
    left = []
    monkeypatch.setattr(
        "cluster.precompute._by_tasks", lambda source, some, *more: left.extend(some)
    )
    heard = []
    shares = replace(ONE, gpus=1.0)
    keys = precompute(SOURCE, mlp, tmp_path, shares, Storing(), heard.append, here=True)
    assert [one.address for one in heard] == list(keys) == [str(m.ref) for m in mlp[:2]]
    assert not any(one.computed for one in heard)
    assert left == mlp[2:]
    path = FactorCache(tmp_path).path(keys[str(mlp[0].ref)])
    path.write_bytes(path.read_bytes()[:-8] + b"damaged!")
    left.clear()
    precompute(SOURCE, mlp, tmp_path, shares, Storing(), heard.append, here=True)
    assert mlp[0] in left and mlp[2] in left
    left.clear()
    precompute(SOURCE, mlp, tmp_path, ONE, Storing(), heard.append)
    assert left == mlp, "a cluster's nodes may have another folder of that name"


def test_a_driver_that_computes_factors_is_asked_to_stop_between_two(mlp, tmp_path):
    def check():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        precompute(SOURCE, mlp, tmp_path, ONE, Storing(), lambda built: None, check, here=True)
    assert len(FactorCache(tmp_path).index()) == 1, "what is finished stays"


def test_what_another_builder_has_claimed_comes_back_busy(mlp, tmp_path):
    cache = FactorCache(tmp_path)
    key = cache.key(WeightOrigin(SOURCE).read(mlp[1]))
    folder = cache.path(key).parent
    folder.mkdir(parents=True)
    with claim(folder / ".claim") as held:
        assert held
        batch = factor_matrices(SOURCE, mlp, str(tmp_path), ONE, Storing(), False)
    assert batch.busy == [mlp[1]]
    assert len(batch.ready) == 2
    assert not factor_matrices(SOURCE, mlp, str(tmp_path), ONE, Storing(), False).busy


def test_a_study_needs_the_ranks_of_its_space_and_keeps_all(mlp, tmp_path):
    few = Storing(max_rho=0.2)
    factor_matrices(SOURCE, mlp[:1], str(tmp_path), ONE, few, False)
    for rho, computed in (((0.2, 0.1), False), ((0.9, 0.1), True)):
        storing = Storing.for_space(Space((mlp[0].ref,), Ladder.of_rho(rho), 1))
        batch = factor_matrices(SOURCE, mlp[:1], str(tmp_path), ONE, storing, False)
        assert batch.ready[0].computed == computed
    with pytest.raises(InputError, match="outside"):
        Storing(max_rho=1.5)


def test_what_keeps_the_smallest_needs_every_rank(mlp, tmp_path):
    factor_matrices(SOURCE, mlp[:1], str(tmp_path), ONE, Storing(max_rho=0.2), False)
    bottom = Space((mlp[0].ref,), Ladder.of([Level.parse("keep-bottom/0.1")]), 1)
    batch = factor_matrices(SOURCE, mlp[:1], str(tmp_path), ONE, Storing.for_space(bottom), False)
    assert batch.ready[0].computed, "or the first trial would compute them"


def test_an_error_names_its_matrix(mlp, tmp_path, monkeypatch):
    monkeypatch.setattr(
        WeightOrigin, "read", lambda self, matrix: torch.full(matrix.shape, float("nan"))
    )
    with pytest.raises(InputError, match=r"^0\.fc_in: .* not finite"):
        factor_matrices(SOURCE, mlp[:1], str(tmp_path), ONE, Storing(), False)


@pytest.mark.parametrize("worth", [PROCESS_WORK, 0])
def test_the_command_computes_once(run, tmp_path, monkeypatch, worth):
    """By the driver, as what is small, and by tasks of Ray."""
    monkeypatch.setattr("search.storing.PROCESS_WORK", worth)
    command = (
        "decompose",
        SOURCE.path,
        "--factors",
        tmp_path,
        "--types",
        "fc_in",
        "--max-rho",
        "0.2",
    )
    out = run(*command, "--address", "0.q_proj").stdout
    assert "4 matrices decomposed" in out and "0 were ready" in out
    cache = FactorCache(tmp_path)
    keys = list(cache.keys())
    assert {cache.load(key, 12).rank for key in keys} == {12}
    with pytest.raises(KeyError):
        cache.load(keys[0], 13)
    assert len(cache.index()) == 4
    out = run(*command).stdout
    assert "0 matrices decomposed" in out and "3 were ready" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--types", "fc_inn"), "--types contains 'fc_inn'"),
        (("--address", "9.fc_in"), "'9.fc_in' matches no matrix"),
        (("--max-rho", "0"), "--max-rho 0"),
    ],
)
def test_bad_input_is_one_sentence(one_process, tmp_path, words, expected):
    err = one_process("decompose", SOURCE.path, "--factors", tmp_path, *words, code=2).stderr
    assert expected in err and err.count("\n") == 1, err
