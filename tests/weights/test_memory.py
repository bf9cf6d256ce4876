import pytest
import torch

from search.weights.factors import FactorCache
from search.weights.memory import FactorMemory

torch.set_num_threads(1)
ROW = 4 * (12 + 20)


@pytest.fixture
def stored(tmp_path):
    cache = FactorCache(tmp_path)
    keys = []
    for seed in range(3):
        weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(seed))
        keys.append(cache.key(weight))
        cache.ensure(weight, keys[-1], "test")
    return cache, keys


def reads(cache, monkeypatch):
    count = []
    load = cache.load
    monkeypatch.setattr(
        cache, "load", lambda *args, **names: count.append(args) or load(*args, **names)
    )
    return count


def test_what_is_kept_is_not_read_again_and_is_the_same_to_the_bit(stored, monkeypatch):
    cache, (key, *_) = stored
    exact = cache.load(key, 12)
    count = reads(cache, monkeypatch)
    memory = FactorMemory(cache)
    for rank in (5, 3, 5, 1):
        assert torch.equal(memory.load(key, rank).product(rank), exact.product(rank))
    assert len(count) == 1
    assert torch.equal(memory.load(key, 6).product(6), exact.product(6))
    assert len(count) == 2 and memory.held_bytes == 6 * ROW


def test_the_least_recently_used_goes_first(stored, monkeypatch):
    cache, (a, b, c) = stored
    count = reads(cache, monkeypatch)
    memory = FactorMemory(cache, budget_bytes=8 * ROW)
    for key in (a, b, a, c):  # c takes b's place
        memory.load(key, 4)
        assert memory.held_bytes <= 8 * ROW
    assert len(count) == 3
    memory.load(a, 4)
    assert len(count) == 3
    memory.load(b, 4)
    assert len(count) == 4


def test_what_is_larger_than_the_budget_is_served_and_not_kept(stored):
    cache, (key, *_) = stored
    memory = FactorMemory(cache, budget_bytes=3 * ROW)
    assert torch.equal(memory.load(key, 4).product(4), cache.load(key, 4).product(4))
    assert memory.held_bytes == 0


def test_a_tail_is_served_beside_a_kept_prefix(stored):
    cache, (key, *_) = stored
    memory = FactorMemory(cache)
    memory.load(key, 2)
    tail = memory.load(key, 0, holding=12).span(9, 12)
    assert torch.equal(tail, cache.load(key, 0, holding=12).span(9, 12))
    assert memory.held_bytes == 2 * ROW


def test_a_file_that_changes_after_its_check_does_not_reach_a_product(stored):
    cache, (key, *_) = stored
    memory = FactorMemory(cache)
    before = memory.load(key, 4).product(4)
    path = cache.path(key)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(memory.load(key, 4).product(4), before)
