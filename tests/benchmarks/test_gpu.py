"""Every step of the benchmark for GPUs runs, on a CPU with small models."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["gpu"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "benchmarks"))  # one step is in a script beside it
        yield module


@pytest.fixture(scope="module")
def bench(gpu, tmp_path_factory):
    return gpu.Bench(tmp_path_factory.mktemp("gpu"), tiny=True)


def test_every_step_is_kept_and_done_once(gpu, bench) -> None:
    names = [name for name in gpu.STEPS if not name.startswith("workers")]
    results = gpu.measure(bench, names)
    assert not {name: r["error"] for name, r in results.items() if "error" in r}
    assert list(results) == names
    kept = bench.out / "results.json"
    assert json.loads(kept.read_text()) == json.loads(json.dumps(results))
    before = kept.read_text()
    gpu.measure(bench, names)
    assert kept.read_text() == before

    for name in ("llama-2-7b", "gpt-j-6b"):
        found = results[f"trial-{name}"]["result"]
        assert [row["layer"] for row in found["layers"]] == [0, 1, 2, 3]
        assert found["prefix reuse"]["torch.equal"] == found["prefix reuse"]["batches"] > 0
    assert not [v for v in results["svd"]["result"]["hostile"].values() if "OUTSIDE" in v]
    assert results["generation"]["result"]["smollm2-135m"]["texts as generate's, of 8"] == 8
    variants = results["variants"]["result"]
    assert [row["rows"] for row in variants["tiny, decoding"]] == [1, 8, 32]
    assert [row["K"] for row in variants["tiny, nested"]] == [9]
    report = (bench.out / "report.md").read_text()
    assert all(f"## {name}\n" in report for name in names)


def test_a_step_that_fails_is_recorded_and_the_next_one_done(gpu, bench, monkeypatch) -> None:
    def fail(bench: object) -> dict[str, object]:
        raise RuntimeError("no memory")

    monkeypatch.setitem(gpu.STEPS, "oom", fail)
    path = bench.out / "results.json"
    path.unlink(missing_ok=True)
    results = gpu.measure(bench, ["oom", "card"])
    assert results["oom"]["error"] == "RuntimeError: no memory"
    assert results["card"]["result"]["device"] == "CPU"


def test_a_worker_waits_until_it_is_told_to_go(gpu, bench, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    gpu.work(bench, "smollm2-135m", 0.01)
    ready, rate = capsys.readouterr().out.split()
    assert ready == "ready" and float(rate) > 0
