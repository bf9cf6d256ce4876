"""What workers run: the program's own three packages, and nothing of the user's folder.

Ray puts the folder that the driver was started in before everything else on a worker's path, so
a folder named ``search`` or ``tasks`` in it would be imported instead of ours. A working folder of
our own, which is empty, takes its place.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("cluster", "laser_search", "search", "tasks")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def local_environment(scratch: Path) -> dict[str, Any]:
    """Ray's runtime environment for workers on this machine: the driver's files, where they lie."""
    return {
        "working_dir": _empty(scratch).as_uri().replace("file", "local", 1),
        "py_modules": [root().as_uri().replace("file", "local", 1)],
    }


def cluster_environment(scratch: Path) -> dict[str, Any]:
    """Ray's runtime environment for other machines: a wheel, which their pip installs alone."""
    return {"working_dir": str(_empty(scratch)), "py_modules": [str(pack_wheel(scratch))]}


def root() -> Path:
    """The folder that holds the packages of the running program."""
    return Path(__file__).resolve().parents[1]


def pack_wheel(folder: Path, requires: Iterable[str] = ()) -> Path:
    """Write the running program's packages as a wheel in `folder`, byte for byte reproducible.

    By default it requires nothing: a node that runs Ray and torch has its own, and must not
    download others. Its version ends in a digest of the content, for Ray takes a wheel that it has
    under the same name for the same. Raises OSError as the file system does.
    """
    files = {name: path.read_bytes() for name, path in _files()}
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    release = f"{version('laser-search').partition('+')[0]}+{digest.hexdigest()[:16]}"
    info = f"laser_search-{release}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: laser-search\nVersion: {release}\n"
        + "".join(f"Requires-Dist: {line}\n" for line in requires)
    ).encode()
    files[f"{info}/entry_points.txt"] = (
        b"[console_scripts]\nlaser-search = laser_search.__main__:main\n"
    )
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: laser-search\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    path = folder / f"laser_search-{release}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def _files() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((root() / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root()).as_posix(), path


def _record(files: dict[str, bytes], own: str) -> str:
    """Every file with its digest and size, as the wheel's format has it (PEP 376)."""
    rows = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join([*rows, f"{own},,"]) + "\n"


def _empty(scratch: Path) -> Path:
    folder = scratch / "empty"
    folder.mkdir(exist_ok=True)
    return folder
