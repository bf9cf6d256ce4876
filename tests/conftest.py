"""The program as a user runs it, in this process; and how exact float32 has to be."""

import copy
import sys

import pytest
import torch

from cluster.cli import main


def pytest_addoption(parser):
    parser.addoption(
        "--threads", type=int, help="torch's threads, instead of the one that is usual"
    )
    parser.addoption("--attention", choices=["eager", "sdpa"], help="instead of a model's default")


def pytest_configure(config):
    asked = config.getoption("attention")
    if asked == "eager":
        from transformers import PreTrainedModel

        chosen = PreTrainedModel.get_correct_attn_implementation

        def choose(self, requested, *rest, **options):
            return chosen(self, requested or "eager", *rest, **options)

        PreTrainedModel.get_correct_attn_implementation = choose


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if threads := item.config.getoption("threads"):
        torch.set_num_threads(threads)
    return (yield)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `laser-search` with these words: exit code, what it printed, what it complained of."""

    def go(*words):
        monkeypatch.setattr(sys, "argv", ["laser-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return go


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
    def exact(model):
        """A copy of the model that computes in float64."""
        twin = copy.deepcopy(model).double()
        # Grouped products of experts have no float64; this is a setting where there are none.
        twin.config._experts_implementation = "eager"
        return twin

    def check(self, found, plain, exact):
        """Each a number, a list of them or a tensor, in the same order."""
        found, plain, exact = (
            torch.as_tensor(values, dtype=torch.float64).detach().flatten()
            for values in (found, plain, exact)
        )
        assert len(found) == len(exact) > 0, f"{len(exact)} figures expected, {len(found)} found"
        roundings = self.ULPS * torch.finfo(torch.float32).eps * exact.abs().max().clamp_min(1)
        own = (plain - exact).abs().max()
        off = (found - exact).abs()
        worst = off.argmax()
        assert off[worst] <= self.MULTIPLE * own + roundings, (
            f"figure {worst}: {found[worst]:.9g}, exactly {exact[worst]:.9g}; off by "
            f"{off[worst]:.1e}, the model's own float32 loop by at most {own:.1e}: expected "
            f"{self.MULTIPLE} times that and {roundings:.1e} at most"
        )

    def decided(self, logits, token=None):
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


@pytest.fixture(scope="session")
def rounding():
    return Rounding()
