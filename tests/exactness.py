"""How exact a float32 figure has to be; for tests and for benchmarks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Distance:
    """The figure that is farthest from exact: what it is `off`, what the plain loop is off at most.

    Of `allowed`, the part that is no multiple of the loop's is `roundings`.
    """

    place: int
    found: float
    exact: float
    off: float
    own: float
    roundings: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether it is no more than rounding."""
        return self.off <= self.allowed


class Rounding:
    """What a processor may do to a float32 figure, from the case and not from one processor.

    Exact is the same model in float64. Its plain float32 loop (transformers itself, one question
    at a time) is off by something, as any float32 run has to be; ours may be off by MULTIPLE times
    that, or by ULPS roundings of the largest figure where the loop was lucky.
    """

    MULTIPLE, ULPS = 8, 4
    DECIDED = 1e-5
    """Of the largest logit: a hundred roundings, more than a model does that amplifies none."""

    @staticmethod
    def exact(model: Any) -> Any:
        """A copy of the model that computes in float64."""
        twin = copy.deepcopy(model).double()
        # Grouped products of experts have no float64; this is a setting where there are none.
        twin.config._experts_implementation = "eager"
        return twin

    def distance(
        self, found: Any, plain: Any, exact: Any, dtype: torch.dtype = torch.float32
    ) -> Distance:
        """Each a number, a list of them or a tensor, in the same order. `dtype`: the model's."""
        found, plain, exact = (
            torch.as_tensor(values, dtype=torch.float64).detach().flatten()
            for values in (found, plain, exact)
        )
        assert len(found) == len(exact) > 0, f"{len(exact)} figures expected, {len(found)} found"
        roundings = self.ULPS * torch.finfo(dtype).eps * exact.abs().max().clamp_min(1)
        own = (plain - exact).abs().max()
        off = (found - exact).abs()
        worst = int(off.argmax())
        allowed = self.MULTIPLE * own + roundings
        figures = (found[worst], exact[worst], off[worst], own, roundings, allowed)
        return Distance(worst, *map(float, figures))

    def check(self, found: Any, plain: Any, exact: Any) -> None:
        """Assert that what is `found` is off by no more than rounding."""
        far = self.distance(found, plain, exact)
        assert far.holds, (
            f"figure {far.place}: {far.found:.9g}, exactly {far.exact:.9g}; off by "
            f"{far.off:.1e}, the model's own float32 loop by at most {far.own:.1e}: expected "
            f"{self.MULTIPLE} times that and {far.roundings:.1e} at most"
        )

    def decided(self, logits: torch.Tensor, token: int | None = None) -> None:
        """Assert that no rounding can change the order at `token` (or of the two best).

        `logits` [vocabulary] in float64. A case where it can proves nothing: take another.
        """
        logits = logits.double()
        own = logits.max() if token is None else logits[token]
        others = logits.sort().values
        gap = (others - own).abs().sort().values[1]
        assert gap >= self.DECIDED * logits.abs().max(), (
            f"expected a case that rounding cannot decide: two tokens are {gap:.1e} apart"
        )
