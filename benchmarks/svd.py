"""Seconds and error of the SVD by method and shape, and of a reconstruction from factors.

    python benchmarks/svd.py [--shapes 768x768,768x3072] [--device cuda] [--threads 1] [--json FILE]

Each matrix has a spectrum that falls over two and a half decades, as trained weights' do. Errors
are against a float64 SVD by LAPACK's gesdd: `spectrum` is max |σ − σ₆₄| / σ₁, `product` is
‖W − U S Vᵀ‖ / ‖W‖, `basis` is max |UᵀU − I|, |VᵀV − I| over all vectors. `best` is the smallest of
the repeats. The last column is what LASER's code does for each trial at rho 0.1, and how much
longer that takes than our product of cached factors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.weights import svd
from search.weights.factors import FactorCache, content_key

SHAPES = "768x768,768x3072,1024x4096,2048x5632,4096x4096"
RHO = 0.1


def matrix(out: int, into: int) -> Tensor:
    """A random matrix [out, in] in float32 with a falling spectrum."""
    generator = torch.Generator().manual_seed(0)
    rank = min(out, into)
    scale = torch.logspace(0, -2.5, rank)
    left = torch.randn(out, rank, generator=generator) / out**0.5
    right = torch.randn(rank, into, generator=generator) / into**0.5
    return (left * scale) @ right


def timed(work: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, Any]:
    """(best seconds, result)."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best, result


def plain(weight: Tensor, dtype: torch.dtype, driver: str | None) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(weight.to(dtype), full_matrices=False, driver=driver)
    return U, S, Vh.T


def gram(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = svd._gram(weight.double())
    if found is None:
        raise ValueError("too many small singular values for the Gram route")
    return found


def errors(weight: Tensor, parts: tuple[Tensor, Tensor, Tensor], exact: Tensor) -> dict[str, float]:
    """Errors of U, S, V after the rounding to float32."""
    U, S, V = (part.float().double() for part in parts)
    wide, eye = weight.double(), torch.eye(len(S), dtype=torch.float64, device=weight.device)
    return {
        "spectrum": float((S - exact).abs().max() / exact[0]),
        "product": float(((U * S) @ V.T - wide).norm() / wide.norm()),
        "basis": float(max((U.T @ U - eye).abs().max(), (V.T @ V - eye).abs().max())),
    }


def methods(device: torch.device) -> dict[str, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    drivers = ("gesvdj", "gesvd") if device.type == "cuda" else (None,)
    table: dict[str, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {}
    for driver in drivers:
        for dtype, bits in ((torch.float64, 64), (torch.float32, 32)):
            name = f"{driver or 'gesdd'} float{bits}"
            table[name] = lambda w, dtype=dtype, driver=driver: plain(w, dtype, driver)
    table["Gram float64"] = gram
    return table


def measure(out: int, into: int, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    weight = matrix(out, into).to(device)
    exact = torch.linalg.svdvals(weight.double())
    rows = []
    for name, work in methods(device).items():
        seconds, parts = timed(lambda work=work: work(weight), device, repeats)
        row = {"shape": f"{out}x{into}", "method": name, "seconds": seconds}
        rows.append(row | errors(weight, parts, exact))
    rows.append(reconstruction(weight, repeats))
    return rows


def reconstruction(weight: Tensor, repeats: int) -> dict[str, Any]:
    """The product at RHO from the cache, against the paper's SVD and product for every trial."""
    device = weight.device
    rank = max(1, int(RHO * min(weight.shape)))

    def original() -> Tensor:
        U, S, V = torch.svd_lowrank(weight, q=rank, niter=2)
        return U @ torch.diag(S) @ V.T

    with tempfile.TemporaryDirectory() as folder:
        cache = FactorCache(Path(folder))
        key = content_key(weight)
        cache.ensure(weight, key, "benchmark")
        cold, _ = timed(lambda: cache.load(key, rank).product(rank, None, device), device, 1)
        factors = cache.load(key, rank)
        ours, best = timed(lambda: factors.product(rank, None, device), device, 3 * repeats)
    theirs, rough = timed(original, weight.device, repeats)
    scale = weight.norm()
    return {
        "shape": "x".join(map(str, weight.shape)),
        "method": f"product at rho {RHO}",
        "seconds": ours,
        "first_s": cold,
        "original_s": theirs,
        "ratio": theirs / ours,
        "error": float((best - weight).norm() / scale),
        "original_error": float((rough - weight).norm() / scale),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for shape in options.shapes.split(","):
        out, into = map(int, shape.split("x"))
        for row in measure(out, into, torch.device(options.device), options.repeats):
            rows.append(row)
            cells = (f"{k}={v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items())
            print(*cells, flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
