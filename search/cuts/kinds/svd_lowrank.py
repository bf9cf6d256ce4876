"""LASER's own low rank, randomised: for parity with its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.cuts.kinds.base import Source
from search.cuts.kinds.triples import LeadingTriples
from search.cuts.rules import RankRule
from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class SvdLowrank(LeadingTriples):
    """`torch.svd_lowrank` with 2 power iterations, seeded.

    An approximation of the leading triples, so a gradient says of it what it says of them; but it
    is not made of them, and reads no factors.
    """

    name = "svd-lowrank"
    about = "torch.svd_lowrank with 2 iterations, as LASER's code does (for parity)"
    rules = ("rho", "rank")
    needs_factors = False
    iterations = 2

    def kept(self, *args: object, **options: object) -> None:  # type: ignore[override]
        """It is no sum of exact triples."""
        return None

    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """The product of the randomised factors [out, in], float32; see `lowrank_product`."""
        import torch

        rank, full = self.rank(rule, tuple(original.shape)), min(original.shape)
        if rank == full:
            return original
        if rank == 0:
            return torch.zeros_like(original)
        return lowrank_product(original, rank, self.iterations)


class SvdLowrank20(SvdLowrank):
    """The same with 20 power iterations, as LASER's code has it for RoBERTa."""

    name = "svd-lowrank-20"
    about = "torch.svd_lowrank with 20 iterations, as LASER's code does for RoBERTa (for parity)"
    iterations = 20


def lowrank_product(weight: Tensor, rank: int, iterations: int = 2) -> Tensor:
    """What LASER's code puts in place of `weight` [out, in]: float32, on its device.

    `torch.svd_lowrank` of `rank` in [1, min(out, in)] without oversampling (Halko, Martinsson and
    Tropp 2011), in float32 with `iterations` power iterations, multiplied out. Seeded here, and
    computed on the host, so that one matrix gives one product on whatever device it lies. Not the
    best rank-r matrix; for parity. Raises InputError if a value is not finite.
    """
    import torch

    full = min(weight.shape)
    if not 1 <= rank <= full:
        raise ValueError(f"a rank in [1, {full}] is expected, not {rank}")
    home = weight.device
    host = weight.detach()
    if not bool(torch.isfinite(host).all()):
        raise InputError(
            f"the matrix of shape {tuple(weight.shape)} contains values that are not finite (NaN "
            "or infinity); check the checkpoint or load it in a wider dtype"
        )
    host = host.cpu().float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the host's alone, unlike torch.manual_seed
        U, S, V = torch.svd_lowrank(host, q=rank, niter=iterations)
    return (U @ torch.diag(S) @ V.T).to(home)
