"""What a plan says before anything is computed: counts that are exact, times that are reckoned."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import search.demo
from search.config import parse_config
from search.cuts.composition import Composition
from search.forecast import Workers, _svd_bytes, foresee
from search.opening import storing_of
from search.origin import WeightOrigin
from search.outline import Outline, factor_bytes, size_text
from search.plan import make_plan
from search.rehearsal import rehearse
from search.storing import ensure_factors
from search.strategies.base import Setting
from search.timing import LONG_S, _between, _least, sample
from search.weights.factors import FactorCache
from tasks.base import Example
from tasks.errors import InputError

DEMO = Path(search.demo.__file__).parent


def _plan(folder, levels=(0.5, 0.1), **search):
    lines = (DEMO / "questions.jsonl").read_text().splitlines()[:200]
    (folder / "q.jsonl").write_text("\n".join(lines))
    return make_plan(
        parse_config(
            {
                "model": {"path": str(DEMO / "model")},
                "task": {"name": "jsonl", "data": str(folder / "q.jsonl")},
                "split": {"validation": 0.4},
                "space": {"levels": list(levels), "max_interventions": 2},
                "search": {"trials": 30, **search},
                "factors": str(folder / "factors"),
            },
            "test",
        )
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return _plan(tmp_path_factory.mktemp("planned"))


def test_the_outline_counts(plan):
    outline = Outline.of(plan)
    count = len(outline.matrices)
    assert count == 6 and outline.trials == 30
    # Two levels each: 12 single cuts, and 4 for each of 15 pairs.
    assert outline.compositions == 12 + 4 * 15
    assert {part.part for part in outline.parts} == {"validation", "test"}
    assert 0 < outline.smallest_gain[""] < 1
    assert "6 matrices" in outline.line() and "72 compositions, 30 trials" in outline.line()


def test_factors_take_what_their_files_hold(plan, tmp_path):
    matrix = plan.searched[0]
    weight = WeightOrigin(plan.source).read(matrix)
    with FactorCache(tmp_path) as cache:
        cache.ensure(weight, key := cache.key(weight), "here")
        held = cache.path(key).stat().st_size
    assert factor_bytes([matrix]) == pytest.approx(held, rel=0.1)
    assert factor_bytes([matrix, matrix], 2) == 4 * factor_bytes([matrix])
    assert [size_text(n) for n in (12, 34_500, 6.7e9)] == ["12 B", "34.5 KB", "6.7 GB"]


@pytest.mark.parametrize("strategy", ["auto", "grid", "random", "snr"])
def test_a_rehearsal_tries_what_the_strategy_could(plan, strategy):
    search = plan.config.search.model_copy(update={"strategy": strategy})
    setting = Setting(plan.space, plan.max_ranks, 0, 1)
    tried = rehearse(search, setting, 20)
    singles = 12  # of which grid tries each once, and no pair
    assert len(tried) == (singles if strategy == "grid" else 20)
    assert all(isinstance(one, Composition) for one in tried)
    assert all(i.matrix in plan.space.matrices for one in tried for i in one.interventions)
    if strategy != "snr":  # drawn, as its spectra are not known
        assert len(set(map(str, tried))) == len(tried)


def test_the_sample_is_a_batch_of_every_length():
    examples = [Example(str(n), str(n), "x" * n, "a") for n in range(1, 1001)]
    few = sample(examples, 2000)
    lengths = sorted(len(one.prompt) for one in few)
    assert 8 <= len(few) < 40 and len(set(lengths)) == len(few)
    assert lengths[0] < 100 and lengths[-1] > 900
    assert sample(examples[:5], 2000) == examples[:5]


def test_between_two_blocks_time_goes_by_the_line():
    known = {0: 4.0, 2: 3.0, 4: 1.0}
    assert [_between(known, place) for place in range(5)] == [4.0, 3.5, 3.0, 2.0, 1.0]
    assert _between({3: 2.0}, 1) == 2.0


def test_a_forecast_says_all_and_writes_nothing(plan, tmp_path):
    root = Path(plan.config.factors)
    weight = WeightOrigin(plan.source).read(plan.searched[0])
    with FactorCache(root) as cache:
        cache.ensure(weight, cache.key(weight), "here")
    before = sorted(root.parent.rglob("*"))
    found = foresee(plan, Workers(2, 1, 2, "cpu", 1.0))
    assert sorted(root.parent.rglob("*")) == before
    assert len(found.missing.names) == 5
    assert str(plan.searched[0].ref) not in found.missing.names
    assert found.missing_bytes < found.factor_bytes
    timing = found.timing
    assert found.phases_s["general text"] == 2 * timing.guard_s / 2 > 0
    assert found.phases_s["calibration"] == found.timing.calibration.bytes == 0
    assert set(timing.trial_s) == set(timing.block_of.values()) == {0, 1, 2}
    assert timing.block_of == {str(m.ref): m.ref.layer for m in plan.searched}
    assert found.phases_s["trials"] == pytest.approx(found.trial_s * 30 / 2)
    assert found.total_s == pytest.approx(sum(found.phases_s.values()))
    text = "\n".join(found.lines())
    for words in (
        "5 to compute, 1 ready",
        "2 on cpu",
        "about",
        "in block 0",
        "too few|find a gain",
    ):
        assert any(word in text for word in words.split("|")), words
    facts = json.loads(json.dumps(found.to_json()))
    assert facts["compositions"] == 72 and len(facts["matrices"]) == 6
    assert facts["smallest_gain"] == Outline.of(plan).smallest_gain


def test_a_forecast_holds_the_calibration_and_the_factors_made_from_it(tmp_path):
    plan = _plan(tmp_path, levels=[0.5, "whitened/0.1"])
    assert plan.config.guard is not None and plan.parts["guard"]
    few = Workers(1, 1, 1, "cpu", 0.0)
    before = foresee(plan, few)
    # Six matrices with two sets of factors each; fc_in reads 64 inputs and fc_out 256.
    assert len(before.missing.factors) == before.missing.sets == 12
    assert before.missing.names[:2] == ["0.fc_in", "0.fc_in whitened"]
    widths = {matrix.parameter: matrix.shape[1] for matrix in plan.searched}
    moments = sum(8 * width**2 for width in widths.values())
    assert before.timing.calibration.bytes == moments
    assert before.missing_bytes == before.factor_bytes + moments
    assert before.phases_s["calibration"] > 0
    inputs = plan.calibration.run(plan.config.factors)
    assert foresee(plan, few).phases_s["calibration"] == 0
    ensure_factors(plan.source, plan.searched, plan.config.factors, storing_of(plan, inputs), "cpu")
    after = foresee(plan, few)
    assert after.missing.factors == () and after.missing_bytes == 0
    assert "0 to compute, 12 ready" in "\n".join(after.lines())


def test_a_model_that_memory_does_not_hold_is_refused_before_it_is_loaded(plan, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**5))
    monkeypatch.setattr("search.forecast.measure", None)
    weights = sum(p.nbytes for p in plan.source.skeleton().parameters())
    assert plan.model_bytes == weights > 10**5
    said = f"takes {size_text(weights)} of memory, and this machine has 100 KB free"
    with pytest.raises(InputError, match=said):
        foresee(plan, Workers(1, 1, 1, "cpu", 1.0))


def test_what_a_worker_keeps_is_counted(plan):
    weights = sum(matrix.shape[0] * matrix.shape[1] * 4 for matrix in plan.searched)
    expected = plan.model_bytes + 2**29 + 2 * 2**30 + factor_bytes(plan.searched) + weights
    found = foresee(plan, Workers(1, 1, 1, "cpu", 1.0, ("three do not fit",)))
    assert found.worker_bytes == expected
    assert "note: three do not fit" in found.lines()


def test_weights_that_stay_in_their_files_are_said_apart(plan, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**5))
    mapped = replace(plan, source=replace(plan.source, mapped=True))
    assert (mapped.held_bytes, plan.held_bytes) == (0, plan.model_bytes)
    found = foresee(mapped, Workers(1, 1, 1, "cpu", 1.0))
    assert found.mapped_bytes == plan.model_bytes
    shared = f"{size_text(plan.model_bytes)} of files that all share (model.mapped)"
    assert any(shared in line for line in found.lines())


def test_a_long_measurement_is_not_repeated():
    assert _least(iter([LONG_S, 1.0]).__next__) == LONG_S
    assert _least(iter([3.0, 2.0]).__next__) == 2.0


def test_a_decomposition_is_said_to_take_a_little_more_than_was_measured():
    """A process that decomposed this matrix held 1.317 GB of its own: docs/log.md."""
    matrix = SimpleNamespace(shape=(11008, 4096), max_rank=4096, dtype=torch.bfloat16)
    assert 1.317e9 < _svd_bytes(matrix) < 1.2 * 1.317e9
