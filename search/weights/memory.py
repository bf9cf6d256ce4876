"""Factors that this process has read, kept in memory up to a budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.refs import MatrixRef
from search.weights.factor_file import Factors

BUDGET_BYTES = 2**30
"""One process's share of host memory, and of a device's; a machine may run several workers."""

DEVICE_SHARE = 0.25
"""At most this part of what a device has free: activations need the rest."""

Place = Literal["device", "pinned", "host"]


class FactorStore(Protocol):
    """Where factors are read: a cache, or an exported patch. See FactorCache for each method."""

    inputs: Mapping[MatrixRef, Inputs]

    def key(self, weight: Tensor, factoring: Factoring | None = None) -> str:
        """The key of the factors of `weight` [out, in]."""
        ...

    def load(self, key: str, rank: int | None = None, *, holding: int | None = None) -> Factors:
        """The factors of `key`; KeyError if there are none or too few."""
        ...

    def ensure(
        self, weight: Tensor, key: str, origin: str, *, factoring: Factoring | None = None
    ) -> bool:
        """Compute the factors of `key` if they are missing."""
        ...


def choose_place(size_bytes: int, device: torch.device, room_bytes: int, pins: bool) -> Place:
    """Where rows of `size_bytes` go: on the parameter's `device` if its room allows, else the host.

    `room_bytes` is what is left of the device's budget; `pins` says whether host memory can be
    pinned, which makes copies to a CUDA device faster. Pure.
    """
    if device.type not in ("cpu", "meta") and size_bytes <= room_bytes:
        return "device"
    return "pinned" if pins and device.type == "cuda" else "host"


class RowsInMemory:
    """The first rows of a factor file as private copies, at `place`; stands in for the file."""

    def __init__(
        self, factors: Factors, place: Place = "host", device: torch.device | None = None
    ) -> None:
        self.shape = factors.shape
        self.spectrum = factors.spectrum
        self.rank = factors.rank
        # Copies, since mapped pages would follow a file that is altered or cut after its check.
        self._U, self._V = (_copy(rows, place, device) for rows in (factors.U, factors.V))

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in]; ValueError beyond those kept."""
        if stop > self.rank and stop > start:
            raise ValueError(f"{self.rank} ranks are in memory, not {stop}")
        return self._U[start:stop], self._V[start:stop]


class FactorMemory:
    """Reads factors through a cache and keeps what was used last, up to `budget_bytes` a place.

    The places are the parameter's device, filled first, and host memory, where what was used
    longest ago makes room. Kept rows are neither read nor checked again. Only prefixes are kept:
    what a rank above half takes from the tail is read each time. Not thread-safe.
    """

    def __init__(self, cache: FactorStore, budget_bytes: int = BUDGET_BYTES) -> None:
        self._cache = cache
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[str, tuple[Place, Factors]] = OrderedDict()
        self.held_bytes = 0
        self.device_bytes = 0

    def load(
        self, key: str, rank: int, *, holding: int = 0, device: torch.device | None = None
    ) -> Factors:
        """As `FactorCache.load`; at least `rank` rows are there, near `device` (default: host)."""
        if key in self._kept and self._kept[key][1].rank >= max(rank, holding):
            self._kept.move_to_end(key)
            return self._kept[key][1]
        factors = self._cache.load(key, rank, holding=holding)
        size = _bytes(factors)
        if rank == 0 or holding > rank or size > self._budget_bytes:
            return factors
        self._drop(key)
        return self._keep(key, factors, torch.device("cpu") if device is None else device)

    def _keep(self, key: str, factors: Factors, device: torch.device) -> Factors:
        size = _bytes(factors)
        place = choose_place(size, device, self._room(device), torch.cuda.is_available())
        if place == "device":
            self.device_bytes += size
        else:
            on_host = [other for other, (at, _) in self._kept.items() if at != "device"]
            for other in on_host:
                if self.held_bytes + size <= self._budget_bytes:
                    break
                self._drop(other)
            self.held_bytes += size
        kept = Factors(RowsInMemory(factors, place, device), factors.rank, lambda error: None)
        self._kept[key] = (place, kept)
        return kept

    def _room(self, device: torch.device) -> int:
        """Bytes that may still be kept on `device`."""
        room = self._budget_bytes - self.device_bytes
        if device.type != "cuda":
            return room
        return min(room, int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]))

    def _drop(self, key: str) -> None:
        if key not in self._kept:
            return
        place, factors = self._kept.pop(key)
        if place == "device":
            self.device_bytes -= _bytes(factors)
        else:
            self.held_bytes -= _bytes(factors)


def _copy(rows: Tensor, place: Place, device: torch.device | None) -> Tensor:
    if place == "device":
        return rows.to(device, copy=True)
    return rows.pin_memory() if place == "pinned" else rows.clone()


def _bytes(factors: Factors) -> int:
    return 4 * factors.rank * sum(factors.shape)
