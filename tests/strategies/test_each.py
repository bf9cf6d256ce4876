"""What each strategy is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState

from search.cuts.composition import Composition
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.sections import SearchConfig
from search.space import Site, Space
from search.strategies.auto import Auto, Shares
from search.strategies.base import History, Setting, Tried
from search.strategies.grid import Grid
from search.strategies.refine import Refine, neighbours
from search.strategies.registry import make_strategy
from search.strategies.screened import Screened
from search.strategies.singles import coarse_to_fine
from search.strategies.snr import SignalToNoise
from search.weights.spectra import Spectrum


def texts(history: History) -> list[str]:
    return [str(tried.composition) for tried in history]


def test_the_grid_is_every_single_once(setting: Setting, run) -> None:
    # rho 0.01 of 64 keeps rank 1, as many as 0.02 would; 0.05 keeps 3
    history = run(Grid(setting), 1000)
    space = setting.space
    assert sorted(texts(history)) == sorted(
        f"{s.name}={r}" for s in space.sites for r in space.levels
    )


@pytest.mark.parametrize("layers", [1, 2, 5, 24])
def test_a_grid_cut_off_anywhere_has_looked_everywhere(layers: int) -> None:
    """After n trials no cell is farther from a tried one than about the spacing of n points."""
    rho = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)
    refs = tuple(MatrixRef(layer, "fc_in") for layer in range(layers))
    cells = [
        (c[0].depth, rho.index(c[1].rule.value))
        for c in coarse_to_fine(Space(refs, Ladder.of_rho(rho), 1))
    ]
    assert len(set(cells)) == len(cells) == layers * len(rho)
    half = cells[: len(cells) // 2]
    for layer, level in cells:
        assert min(max(abs(layer - a), abs(level - b)) for a, b in half) <= 2 + layers // 12


def by_hand(setting: Setting, score) -> Iterator[tuple[str, bool]]:
    """The paper's greedy search, written out: what it tries, and whether that stays."""
    kept: list[str] = []
    best = (0.0, -1.0)
    for layer in range(3, -1, -1):
        for kind in ("fc_in", "fc_out"):
            for rho in sorted(level.rule.value for level in setting.space.levels):
                found = Composition.parse([*kept, f"{layer}.{kind}={rho}"])
                merit = (score(found), -(1 - score(found)))
                yield str(found), merit > best
                if merit > best:
                    best = merit
                    kept.append(f"{layer}.{kind}={rho}")
                    break


def test_greedy_is_the_papers_search(setting: Setting, run, land) -> None:
    setting = replace(setting, space=replace(setting.space, max_interventions=8))
    history = run(make_strategy(SearchConfig(strategy="greedy"), setting), 1000)
    assert texts(history) == [text for text, _ in by_hand(setting, land.score)]
    best = history.best()
    assert {str(i.matrix) for i in best.composition.interventions} == {
        text.partition("=")[0] for text in land.best
    }


def test_greedy_with_several_in_flight_goes_the_same_way(setting: Setting, run) -> None:
    strategy = make_strategy(SearchConfig(strategy="greedy"), setting)
    alone = run(strategy, 1000)
    several = run(make_strategy(SearchConfig(strategy="greedy"), setting), 1000, flying=4)
    assert set(texts(alone)) <= set(texts(several)), "what was begun in vain is all that is more"


def test_snr_tries_the_noisiest_first_and_keeps_what_does_no_harm(setting: Setting, run) -> None:
    chance = np.random.default_rng(1)
    spectra = {}
    for place, ref in enumerate(setting.space.matrices):
        signal = np.zeros((64, 64))
        signal[0, 0] = 30.0 * place
        values = np.linalg.svd(chance.standard_normal((64, 64)) + signal)[1]
        spectra[ref] = Spectrum(str(ref), "", "", (64, 64), values)
    for rule in ("laser-rmt", "marchenko-pastur"):
        strategy = SignalToNoise(replace(setting, spectra=spectra, threshold=rule))
        history = run(strategy, 100)
        order = sorted(spectra, key=lambda ref, rule=rule: spectra[ref].signal_to_noise(rule))
        last = [list(t.composition.interventions) for t in history]
        kept: set[MatrixRef] = set()
        for ref, cut in zip(order, last, strict=True):
            assert {i.matrix for i in cut} == kept | {ref}
            (own,) = [i for i in cut if i.matrix == ref]
            assert own.rule.value == max(1, spectra[ref].kept(rule))
            number = history.find(Composition(tuple(cut))).number
            before = max((history[n].merit for n in range(number)), default=(0.0, -1.0))
            if history[number].merit >= max(before, (0.0, -1.0)):
                kept.add(ref)
    assert all(s.kept("marchenko-pastur") <= 3 for s in spectra.values()), "noise is no signal"


def test_screened_follows_the_screen_and_puts_the_survivors_together(setting, run, land) -> None:
    exact = {cut: -land.score(Composition((cut,))) for cut in setting.screen}
    history = run(Screened(replace(setting, screen=exact)), 24)
    singles = [tried for tried in history if len(tried.composition.interventions) == 1]
    values = [tried.values[0] for tried in singles]
    assert values == sorted(values, reverse=True)
    best = history.best()
    assert {str(i) for i in best.composition.interventions} == land.best


def one(ref: MatrixRef, rho: float) -> Composition:
    return Composition.parse([f"{ref}={rho}"])


@pytest.mark.parametrize("screen", [True, False])
def test_auto_finds_the_best_composition_there_is(
    setting: Setting, run, land, screen: bool
) -> None:
    setting = setting if screen else replace(setting, screen=None)
    history = run(Auto(setting, Shares(fewest=6)), 70)
    best = history.best()
    assert {str(i) for i in best.composition.interventions} == land.best


@pytest.mark.parametrize("soft", [False, True], ids=["by score", "by soft score"])
def test_auto_puts_together_what_a_race_stopped(
    setting: Setting, new_history, land, *, soft: bool
) -> None:
    """A single that lost to the best may be what the best lacks.

    Ranked by soft scores, hits say nothing here: every trial has as many as the unedited model.
    """
    setting = replace(
        setting, screen={cut: -land.score(Composition((cut,))) for cut in setting.screen}
    )
    history = new_history(70)
    before = history.baseline.values[0]
    history.put(
        replace(history.baseline, steps=((1, 0.0), (2, 0.0)), soft_score=before if soft else None)
    )
    strategy = Auto(setting, Shares(fewest=6))
    for number in range(70):
        composition = strategy.suggest(history)
        best, score = history.best(), land.score(composition)
        hits = before if soft else score
        tried = Tried(
            *(number, composition, history.effect(composition)),
            steps=((1, 0.0 if soft else score),),
            soft_score=score if soft else None,
        )
        if best is None or score > best.ranked_by:
            tried = replace(tried, state=TrialState.COMPLETE, values=(hits,), log_loss=1 - score)
        else:
            tried = replace(tried, state=TrialState.PRUNED)
        history.put(tried)
    assert {str(i) for i in history.best().composition.interventions} == land.best


def test_refine_takes_every_single_step_from_the_best(
    setting: Setting, new_history, flight
) -> None:
    history = new_history()
    for text in ("0.fc_in=0.9", "1.fc_out=0.2 3.fc_in=0.05"):
        flight.end(history, flight.begin(history, Composition.parse(text.split())))
    best = history.best()
    strategy, found = Refine(setting), []
    for _ in range(4):
        composition = strategy.suggest(history)
        found.append(str(composition))
        flight.begin(history, composition)
    steps = [
        *("1.fc_out=0.05 3.fc_in=0.05", "1.fc_out=0.6 3.fc_in=0.05"),
        *("1.fc_out=0.2 3.fc_in=0.01", "1.fc_out=0.2 3.fc_in=0.2"),
    ]
    assert sorted(found) == sorted(steps)
    choices = setting.space.choices(best.composition)
    near = {str(setting.space.cut(n)) for n in neighbours(setting.space, choices, "0")}
    assert {"3.fc_in=0.05", "1.fc_out=0.2", "1.fc_out=0.2 2.fc_in=0.05"} <= near
    assert {"0.fc_out=0.2 3.fc_in=0.05", "0.fc_in=0.6 1.fc_out=0.2 3.fc_in=0.05"} <= near
    assert len(near) == 4 + 2 + 3 + 6 * 5


def test_a_group_moves_by_a_layer_as_one(setting: Setting) -> None:
    refs = setting.space.matrices
    mlps = tuple(Site(f"{n}.mlp", refs[2 * n : 2 * n + 2]) for n in range(4))
    space = Space(refs, Ladder.between(0.1, 0.9), 1, mlps, singles=False)
    near = [choices for choices in neighbours(space, [(mlps[1], Level.parse(0.3))], "0")]
    assert [(site.name, round(level.rule.value, 3)) for ((site, level),) in near] == [
        *(("1.mlp", 0.262), ("1.mlp", 0.344), ("0.mlp", 0.3), ("2.mlp", 0.3))
    ]


def test_what_is_given_comes_first_and_the_end_stays_near_the_best(setting, run) -> None:
    given = ["2.fc_in=0.6 3.fc_in=0.2", "0.fc_in=rank:40"]
    config = SearchConfig(strategy="random", warm_start=given, refine=0.25)
    history = run(make_strategy(config, setting), 40)
    assert texts(history)[:2] == given
    for number in range(31, 40):
        before = max((history[n] for n in range(number)), key=lambda tried: tried.merit)
        assert steps_between(history[number].composition, before.composition) <= 2
    alone = run(make_strategy(SearchConfig(strategy="greedy", refine=5), setting), 200)
    assert len(alone) == 200, "a strategy that ends early leaves the rest to the refinement"


def steps_between(a: Composition, b: Composition) -> int:
    """Interventions that one has and the other has not."""
    return len(set(a.interventions) ^ set(b.interventions))
