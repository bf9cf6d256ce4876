"""TPE that shares a look at the history draws what Optuna's own draws."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import TPESampler

from search.strategies.samplers import SAMPLERS
from search.strategies.shared_tpe import SHARE, Look, SharedTPE


def propose(study: optuna.Study) -> tuple[optuna.Trial, float]:
    trial = study.ask()
    count = trial.suggest_int("count", 1, 3)
    value = 0.0
    for slot in range(count):
        value += (trial.suggest_int(f"layer_{slot}", 0, 11) - 7) ** 2
        value += trial.suggest_categorical(f"type_{slot}", ["a", "b"]) == "a"
        value += trial.suggest_float(f"rho_{slot}", 0.01, 1.0, log=True)
    return trial, -value / count


def drive(make, trials: int, in_flight: int) -> list[dict[str, object]]:
    """A study whose sampler is built anew for every trial, as a study's is."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    open_trials = []
    for number in range(trials):
        study.sampler = make(number)
        open_trials.append(propose(study))
        if len(open_trials) >= in_flight:
            study.tell(*open_trials.pop(0))
    return [trial.params for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("in_flight", [1, 2 * SHARE - 1])
def test_the_same_draws_as_optunas(in_flight: int) -> None:
    look = Look()
    ours = drive(lambda seed: SharedTPE(seed, look), 60, in_flight)
    theirs = drive(lambda seed: TPESampler(seed=seed), 60, in_flight)
    assert ours == theirs
    assert look.taken > 40


def test_one_look_serves_many_on_a_wide_cluster() -> None:
    look = Look()
    drive(lambda seed: SharedTPE(seed, look), 200, 32)
    assert look.taken < 200 * SHARE / 32 + SHARE * 2


def test_families_do_not_share_between_studies() -> None:
    first, second = SAMPLERS["tpe"].family(), SAMPLERS["tpe"].family()
    assert first(0)._look is first(1)._look
    assert first(0)._look is not second(0)._look
