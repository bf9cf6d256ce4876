"""What the factor cache reads, and what it does when its world misbehaves.

    python benchmarks/cache.py [--out 1024 --into 4096] [--folder DIR]

`read`: bytes that come from disk for a product at each rho with a cold page cache (Linux's
accounting), and seconds to the first row and to the product. `builders`: two processes on one empty
folder, how many each computed and how long both took, against one alone. Then a flipped byte, a
truncated file, a full disk (a small tmpfs, where it may be mounted) and a read-only folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from search.weights.factors import DamagedFactorsError, FactorCache
from search.weights.memory import FactorMemory
from tasks.errors import InputError

BUILDER = """
import sys, time, torch
from search.weights.factors import Busy, FactorCache
torch.set_num_threads(1)
left, computed = list(range(int(sys.argv[2]))), 0
print("ready", flush=True)
sys.stdin.readline()
make = lambda seed: torch.randn(512, 1024, generator=torch.Generator().manual_seed(seed))
with FactorCache(sys.argv[1]) as cache:
    for wait in (False, True):
        busy = []
        for seed in left:
            weight = make(seed)
            try:
                computed += cache.ensure(weight, cache.key(weight), f"m:{seed}", wait=wait)
            except Busy:
                busy.append(seed)
        left = busy
print(computed)
"""


def disk_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def forget(path: Path) -> None:
    """Drop the file's pages from the system's cache."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(cache: FactorCache, key: str, full: int) -> None:
    path = cache.path(key)
    size = path.stat().st_size
    print(f"file: {size} bytes, {full} ranks")
    for rho in (0.01, 0.1, 0.5):
        rank = int(rho * full)
        forget(path)
        before, start = disk_bytes(), time.perf_counter()
        cache.load(key, 1)
        first = time.perf_counter() - start
        forget(path)
        before, start = disk_bytes(), time.perf_counter()
        cache.load(key, rank).product(rank)
        seconds, read = time.perf_counter() - start, disk_bytes() - before
        print(
            f"read: rho {rho} rank {rank}: {read} bytes ({read / size:.1%} of the file), "
            f"first row {first * 1e3:.1f} ms, product {seconds * 1e3:.1f} ms"
        )
        start = time.perf_counter()
        cache.load(key, rank).product(rank)
        print(f"      again, pages warm: {(time.perf_counter() - start) * 1e3:.1f} ms")


def resident(cache: FactorCache, key: str, full: int) -> None:
    """A product whose factors are read anew, pages warm, against one of factors in memory."""
    memory = FactorMemory(cache)
    for rho in (0.01, 0.1, 0.5):
        rank = int(rho * full)
        best = {}
        for name, source in (("read", cache), ("memory", memory)):
            source.load(key, rank).product(rank)
            times = []
            for _ in range(7):
                start = time.perf_counter()
                source.load(key, rank).product(rank)
                times.append(time.perf_counter() - start)
            best[name] = min(times) * 1e3
        print(f"resident: rho {rho}: {best['read']:.1f} ms read, {best['memory']:.1f} ms in memory")


def builders(folder: Path, count: int, matrices: int) -> tuple[float, list[int]]:
    """(seconds, matrices computed by each) of `count` processes on one folder."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(folder), str(matrices)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # imports are over
    start = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    computed = [int(process.communicate()[0]) for process in running]
    return time.perf_counter() - start, computed


def damage(cache: FactorCache, key: str, weight: torch.Tensor) -> None:
    path = cache.path(key)
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[len(torn) // 2] ^= 1
    for name, data in (("flipped byte", bytes(torn)), ("truncated file", whole[: len(whole) // 2])):
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            cache.load(key)
            found = "used as it is"
        except DamagedFactorsError as error:
            found = str(error).rpartition(": ")[2]
        seconds = time.perf_counter() - start
        computed = cache.ensure(weight, key, "again")
        same = path.read_bytes()[-1000:] == whole[-1000:]
        print(f"{name}: {found} ({seconds * 1e3:.0f} ms); computed={computed} same bytes={same}")


def full_disk(weight: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", name],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            print("full disk: no tmpfs may be mounted here")
            return
        try:
            cache = FactorCache(name)
            small = weight[:64, :64].contiguous()
            cache.ensure(small, cache.key(small), "small")
            try:
                cache.ensure(weight, cache.key(weight), "large")
            except InputError as error:
                print(f"full disk: {error}")
            left = [path.name for path in Path(name).rglob("*.tmp")]
            print(f"full disk: small one whole={cache.verify(cache.key(small))}, left over: {left}")
        finally:
            subprocess.run(["umount", name], check=True)


READER = """
import os, sys, torch
from search.weights.factors import FactorCache
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
cache = FactorCache(sys.argv[1])
key = next(cache.keys())
print("read-only folder: product", tuple(cache.load(key, 4).product(4).shape))
weight = torch.randn(8, 8)
try:
    cache.ensure(weight, cache.key(weight), "x")
except ValueError as error:
    print("read-only folder:", error)
"""


def read_only(weight: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as name:
        cache = FactorCache(name)
        small = weight[:64, :64].contiguous()
        cache.ensure(small, cache.key(small), "small")
        folders = [Path(name), *(path for path in Path(name).iterdir() if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        subprocess.run([sys.executable, "-c", READER, name], check=True)
        for folder in folders:
            folder.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=int, default=1024)
    parser.add_argument("--into", type=int, default=4096)
    parser.add_argument("--matrices", type=int, default=16)
    parser.add_argument("--folder", help="where to measure; by default the temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(options.out, options.into, generator=generator)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        cache = FactorCache(Path(name) / "one")
        key = cache.key(weight)
        cache.ensure(weight, key, "benchmark")
        reading(cache, key, min(weight.shape))
        resident(cache, key, min(weight.shape))
        damage(cache, key, weight)
        for count in (1, 2):
            folder = Path(name) / f"by-{count}"
            seconds, computed = builders(folder, count, options.matrices)
            print(f"builders: {count}: {seconds:.2f} s, computed {computed}")
    full_disk(weight)
    read_only(weight)


if __name__ == "__main__":
    main()
