"""What holds for every kind of cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.base import Factoring, Kind, spectrum_for
from search.cuts.kinds.registry import get_kind
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from search.evaluation.gradients import WholeGradient
from search.study.trials import kept_share
from search.weights.factors import FactorCache
from search.weights.moments import digest_moment
from search.weights.products import Products
from search.weights.whitening import whitening
from tasks.errors import InputError

SHAPES = [(12, 8), (8, 12), (9, 9)]
VALUES = {
    "rho": (0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 1.0),
    "rank": (0, 1, 3, 8),
    "energy": (0.0, 0.5, 0.9, 1.0),
}
"""Values of a rule that are tried; of a threshold 1 and 0.5."""

REF = MatrixRef(0, "fc_in")


def levels_of(kind: Kind) -> list[Level]:
    """A level of every rule that `kind` takes, at several values."""
    if kind.fixed is not None:
        return [Level(kind.fixed, kind.name)]
    return [
        Level(RankRule(rule, float(value)), kind.name)
        for rule in kind.rules
        for value in VALUES.get(rule, (1.0, 0.5))
    ]


def matrix(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A seeded random matrix [out, in]."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype)


@dataclass(frozen=True)
class Measured:
    """What a matrix is given, made up: the second moment of seeded inputs of different sizes."""

    moment: Tensor

    @property
    def digest(self) -> str:
        """Of its bytes."""
        return digest_moment(len(self.moment), self.moment.numpy().tobytes())

    def read(self) -> Tensor:
        """C [in, in], float64."""
        return self.moment

    def whitening(self) -> Factoring:
        """The factoring that it makes."""
        return whitening(self.digest, self.read)


def measured(width: int, seed: int = 5) -> Measured:
    """The second moment of seeded inputs [width], the last ten times smaller than the first."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * width, width, generator=draw, dtype=torch.float64)
    inputs = inputs * torch.logspace(0, -1, width, dtype=torch.float64)
    return Measured(inputs.T @ inputs / len(inputs))


class KindContract:
    """Override `kind`. The kind must be installed: it is found by its name."""

    @pytest.fixture
    def kind(self) -> Kind:
        """The kind under test."""
        raise NotImplementedError

    @pytest.fixture
    def products(self, shape: tuple[int, int], tmp_path: Path) -> Products:
        """Where factors come from, for a matrix of this shape, whose inputs were measured."""
        return Products(FactorCache(tmp_path / "factors", inputs={REF: measured(shape[1])}))

    def test_it_is_found_by_its_name(self, kind: Kind) -> None:
        assert type(get_kind(kind.name)) is type(kind)
        assert not set(kind.name) & set(" /=:\n"), "a level is written KIND/RULE:VALUE"
        assert kind.about, "lists of kinds show one line about each"

    def test_its_levels_read_back(self, kind: Kind) -> None:
        assert levels_of(kind), "a kind takes a rule, or is one level"
        for level in levels_of(kind):
            assert Level.parse(str(level)) == level
            cut = Composition((Intervention(REF, level),))
            assert (
                Composition.parse(str(cut).split()) == cut == Composition.from_dict(cut.to_dict())
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_an_edit_is_a_function_of_the_matrix(
        self, kind: Kind, products: Products, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        """Same bytes every time, of the matrix's shape, finite; the original stays as it was."""
        weight = matrix(shape, dtype)
        before = weight.clone()
        for level in levels_of(kind):
            cut = Intervention(REF, level)
            first, second = products.value(cut, weight), products.value(cut, weight)
            assert first.shape == weight.shape, level
            assert bool(torch.isfinite(first).all()), level
            assert torch.equal(first, second), f"{level} is not the same twice"
            assert torch.equal(weight, before), f"{level} changed the original"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_equal_effects_give_equal_bytes(
        self, kind: Kind, products: Products, shape: tuple[int, int]
    ) -> None:
        """A study evaluates an effect once, and one that is empty never."""
        weight = matrix(shape)
        found: dict[str, Tensor] = {}
        for level in levels_of(kind):
            cut = Intervention(REF, level)
            spectrum = spectrum_for([level.rule], products.source(cut, weight))
            effect = kind.effect(level.rule, min(shape), spectrum, shape)
            value = products.value(cut, weight).to(weight.dtype)
            if not effect:
                assert torch.equal(value, weight), f"{level} says that it does nothing, and does"
            assert kind.keeps_nothing(level.rule) == (effect == "zero:0"), level
            if effect == "zero:0":
                assert not bool(value.any()), f"{level} says that nothing is left"
            assert torch.equal(found.setdefault(effect, value), value), f"{level}: {effect}"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_what_it_keeps_is_what_it_is_made_of(
        self, kind: Kind, products: Products, shape: tuple[int, int]
    ) -> None:
        """Where it names triples, the edit is their sum: exports rely on it."""
        weight = matrix(shape)
        for level in levels_of(kind):
            cut = Intervention(REF, level)
            kept = products.kept(cut, weight)
            if kept:
                factors = products.factors(cut, weight, min(shape))
                expected = factors.span(kept.start, kept.stop)
                assert torch.dist(products.value(cut, weight), expected) <= 1e-5 * weight.norm()

    def test_its_factors_are_the_matrix(self, kind: Kind, tmp_path: Path) -> None:
        """And they have a key of their own, which another matrix does not share."""
        cache = FactorCache(tmp_path / "factors")
        for shape in SHAPES:
            weight, factoring = matrix(shape), kind.factoring_on(measured(shape[1]))
            if factoring is None:
                return
            U, S, V = factoring.decompose(weight)
            assert U.shape == (shape[0], min(shape)), "U is [out, k]"
            assert V.shape == (shape[1], min(shape)), "V is [in, k]"
            assert torch.dist((U * S) @ V.T, weight) <= 1e-5 * weight.norm()
            assert cache.key(weight, factoring) != cache.key(weight)
            assert cache.key(weight, factoring) != cache.key(weight + 1, factoring)

    def test_other_inputs_have_other_factors(self, kind: Kind) -> None:
        """And without any, a kind that is made from them says so."""
        if not kind.needs_inputs:
            assert kind.factoring_on(None) is kind.factoring
            return
        with pytest.raises(InputError):
            kind.factoring_on(None)
        names = {str(kind.factoring_on(measured(8, seed))) for seed in range(3)}
        assert len({name.partition("decompose")[0] for name in names}) == 3

    @pytest.mark.parametrize("shape", SHAPES)
    def test_what_it_stores_is_at_most_the_matrix(self, kind: Kind, shape: tuple[int, int]) -> None:
        for level in levels_of(kind):
            if not level.rule.needs_spectrum:
                assert 0 <= kind.stored(level.rule, shape) <= shape[0] * shape[1], level
            cut = Composition((Intervention(REF, level),))
            assert 0 <= kept_share(cut, {REF: shape}) <= 1

    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_loss_changes_by_the_slope_to_first_order(
        self, kind: Kind, products: Products, shape: tuple[int, int]
    ) -> None:
        """⟨G, W' − W⟩ of the edits themselves, in float64.

        A kind that only stands for its edit there, as a randomised low rank does for the exact one,
        is allowed a tenth of ‖G‖ ‖W‖.
        """
        weight, levels = matrix(shape), levels_of(kind)
        gradient = matrix(shape[::-1]).T.contiguous()
        source = products.source(Intervention(REF, levels[0]), weight)
        rules = [level.rule for level in levels]
        found = kind.first_order(rules, weight, WholeGradient(gradient), source)
        assert found.dtype == torch.float64
        for level, change in zip(levels, found.tolist(), strict=True):
            edited = products.value(Intervention(REF, level), weight).double()
            expected = float(((edited - weight.double()) * gradient.double()).sum())
            room = 1e-5 if kind.kept(RankRule("rho", 0.0), shape) is not None else 0.1
            assert abs(change - expected) <= room * float(weight.norm() * gradient.norm()), level
