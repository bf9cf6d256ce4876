"""Second moments of what matrices are given, on disk beside the factors that are made from them.

One safetensors file for one input: ``moment`` F64 [n, n]. The metadata carries a digest of the
moment, which is part of the keys of factors, and a check of itself, so that each byte is covered.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from search.cuts.kinds.base import Factoring
from search.durable import write_file
from search.weights.claims import claim
from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "laser-moments-1"
FOLDER = "moments"
_log = logging.getLogger(__name__)


class DamagedMomentError(Exception):
    """A file of a second moment whose bytes are not those that were written."""


@dataclass(frozen=True)
class SecondMoment:
    """C = E[x xᵀ] of the inputs x [n] of one or several matrices, as it lies in a cache.

    `digest`: of C's bytes. `tokens`: how many x it is the mean of. `width`: n. `name`: of the
    input, which is that of the first parameter that multiplies it. `calibration`: which model on
    which texts. `root`: the cache, a folder or a URL.
    """

    digest: str
    tokens: int
    width: int
    name: str
    calibration: str
    root: str

    def whitening(self) -> Factoring:
        """See `search.weights.whitening`; C is read when factors are made."""
        from search.weights.whitening import whitening

        return whitening(self.digest, self.read)

    def read(self) -> Tensor:
        """C [n, n], float64, on the host, checked. Raises InputError if it cannot be had."""
        from search.weights.remote import open_moments

        found = open_moments(self.root).load(self)
        if found is None:
            raise InputError(
                f"{self.root} no longer holds the second moment of the inputs of {self.name}; "
                "resume the study, or run laser-search decompose again, to measure it again"
            )
        return found


@dataclass(frozen=True)
class NotedMoment:
    """A second moment of which the digest alone is known: enough for the key of factors."""

    digest: str

    def whitening(self) -> Factoring:
        """See `search.weights.whitening`; no factors can be made."""
        from search.weights.whitening import whitening

        return whitening(self.digest, self.read)

    def read(self) -> Tensor:
        """Refuse. Raises InputError."""
        raise InputError(
            f"the second moment {self.digest[:12]} is not available, so its factors cannot be "
            "computed"
        )


class MomentStore:
    """The second moments in the factor cache at `root`: ``moments/<calibration>/<name>``.

    Files appear whole or not at all; damaged ones are set aside with a warning and count as absent.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)

    def find(self, calibration: str, name: str) -> SecondMoment | None:
        """The second moment of an input as the head of its file has it; None if there is none.

        Raises InputError if the file is of another model or other texts.
        """
        facts = self._facts(calibration, name)
        if facts is None:
            return None
        if (facts["calibration"], facts["name"]) != (calibration, name):
            raise InputError(
                f"{self._place(calibration, name)} in {self.root} belongs to another model or "
                f"other calibration texts ({facts['name']}, {facts['calibration'][:12]}); delete it"
            )
        tokens, width = int(facts["tokens"]), int(facts["width"])
        return SecondMoment(facts["digest"], tokens, width, name, calibration, self.root)

    def load(self, wanted: SecondMoment) -> Tensor | None:
        """C [n, n] of `wanted`, float64, every byte checked; None if it is absent or damaged."""
        import torch

        place = self._place(wanted.calibration, wanted.name)
        try:
            with self._open(place) as stream:
                facts = read_head(stream)
                data = bytearray(stream.read())
        except FileNotFoundError:
            return None
        except DamagedMomentError as error:
            self._set_aside(place, error)
            return None
        width = int(facts["width"])
        if len(data) != 8 * width * width or digest_moment(width, data) != facts["digest"]:
            self._set_aside(place, DamagedMomentError(f"{place} is damaged: its values changed"))
            return None
        if facts["digest"] != wanted.digest:
            return None  # measured anew, with other rounding
        return torch.frombuffer(data, dtype=torch.float64).view(width, width)

    def save(self, calibration: str, name: str, moment: Tensor, tokens: int) -> SecondMoment:
        """Store C [n, n], float64, durably. Raises InputError if the folder cannot be written."""
        data = moment.detach().cpu().contiguous().numpy().tobytes()
        width = len(moment)
        facts = {
            "format": FORMAT,
            "calibration": calibration,
            "name": name,
            "width": str(width),
            "tokens": str(tokens),
            "digest": digest_moment(width, data),
        }
        self._write(self._place(calibration, name), head_of(facts) + data)
        return SecondMoment(facts["digest"], tokens, width, name, calibration, self.root)

    @contextmanager
    def claimed(self, calibration: str) -> Iterator[None]:
        """One process measures a calibration at a time; others wait for it."""
        folder = self._claims() / FOLDER / calibration
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = claim(folder / ".claim")
            held.__enter__()
        except OSError as error:
            raise _refusal(self.root, error) from None
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def _facts(self, calibration: str, name: str) -> dict[str, str] | None:
        place = self._place(calibration, name)
        try:
            with self._open(place) as stream:
                return read_head(stream)
        except FileNotFoundError:
            return None
        except DamagedMomentError as error:
            self._set_aside(place, error)
            return None

    @staticmethod
    def _place(calibration: str, name: str) -> str:
        # Names of parameters may hold anything; the file says its own.
        short = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        return f"{FOLDER}/{calibration}/moment-{short}.safetensors"

    def _claims(self) -> Path:
        return Path(self.root)

    def _open(self, place: str) -> BinaryIO:
        return (Path(self.root) / place).open("rb")

    def _write(self, place: str, data: bytes) -> None:
        path = Path(self.root) / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, partial(_fill, data=data))
        except OSError as error:
            raise _refusal(self.root, error) from None

    def _set_aside(self, place: str, error: DamagedMomentError) -> None:
        path = Path(self.root) / place
        try:
            path.replace(path.with_name(f"{path.name}.damaged"))
        except OSError:
            _log.warning("%s; it stays where it is", error)
        else:
            _log.warning("%s; set aside as %s.damaged", error, path.name)


def digest_moment(width: int, data: bytes | bytearray) -> str:
    """Digest of a second moment [width, width], float64."""
    digest = hashlib.blake2b(f"{width}\0".encode(), digest_size=20)
    digest.update(data)
    return digest.hexdigest()


def head_of(facts: Mapping[str, str]) -> bytes:
    """The head of a file, with its length: a function of `facts` alone."""
    width = int(facts["width"])
    metadata = {**facts, "check": _check(facts)}
    entries = {
        "__metadata__": dict(sorted(metadata.items())),
        "moment": {
            "dtype": "F64",
            "shape": [width, width],
            "data_offsets": [0, 8 * width * width],
        },
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_head(stream: BinaryIO) -> dict[str, str]:
    """What the head of an open file says, up to its values. Raises DamagedMomentError."""
    name = getattr(stream, "name", "a file of second moments")
    try:
        prefix = stream.read(8)
        (length,) = struct.unpack("<Q", prefix)
        if length > 2**20:
            raise ValueError("its head is too long")
        text = stream.read(length)
        facts: dict[str, str] = json.loads(text)["__metadata__"]
        if facts.pop("check") != _check(facts) or prefix + text != head_of(facts):
            raise ValueError("its head was altered")
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']!r}")
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise DamagedMomentError(f"{name} is damaged: {error!r}") from None
    return facts


def _check(facts: Mapping[str, str]) -> str:
    text = json.dumps(dict(facts), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _refusal(root: str, error: OSError) -> InputError:
    return InputError(
        f"the factors folder {root} cannot be written ({error.strerror or error}); free space in "
        "it, make it writable, or choose another folder; what is already measured is kept"
    )
