import pytest
import torch

from search.weights.factors import FactorCache
from search.weights.memory import FactorMemory, RowsInMemory, choose_place

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


@pytest.mark.parametrize(
    ("device", "room", "pins", "place"),
    [
        ("cuda", 100, True, "device"),
        ("cuda", 99, True, "pinned"),
        ("cuda", 99, False, "host"),
        ("mps", 100, False, "device"),
        ("mps", 99, True, "host"),
        ("cpu", 100, True, "host"),
        ("meta", 100, True, "host"),
    ],
)
def test_rows_live_on_the_device_while_there_is_room(device, room, pins, place):
    assert choose_place(100, torch.device(device), room, pins) == place


def test_a_full_device_leaves_the_rest_to_host_memory(stored, monkeypatch):
    cache, (a, b, c) = stored
    placed = []
    monkeypatch.setattr(
        "search.weights.memory.RowsInMemory",
        lambda factors, place, device: placed.append(place) or RowsInMemory(factors),
    )
    memory = FactorMemory(cache, budget_bytes=8 * ROW)
    exact = cache.load(a, 12)
    for key, rank in ((a, 6), (b, 4), (c, 4), (a, 6)):
        memory.load(key, rank, device=torch.device("mps"))
    assert placed == ["device", "host", "host"]
    assert (memory.device_bytes, memory.held_bytes) == (6 * ROW, 8 * ROW)
    memory.load(b, 6, device=torch.device("mps"))  # c goes, a stays on the device
    assert (memory.device_bytes, memory.held_bytes) == (6 * ROW, 6 * ROW)
    memory.load(a, 8, device=torch.device("mps"))  # more rows of a: the device is free again
    assert (memory.device_bytes, memory.held_bytes) == (8 * ROW, 6 * ROW)
    assert torch.equal(memory.load(a, 8).product(8), exact.product(8))
